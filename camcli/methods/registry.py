"""The methods: pure functions from what was recorded to maps. Knows no models, files or colours.

A method's positional parameters name the tensors that it asks for, of a batch B and one score of
each image. Each is a provider in `camcli.engine.providers`, whose docstring gives its meaning and
its shape. A method that asks for a layer's tensors is called for one layer at a time.

A method's keyword-only parameters are its options, set with `--set KEY=VALUE`; one called `seed`
is `--seed`. It returns a raw map (B,H,W); or `returns` "terms": what each channel says (B,C,H,W),
of which relu(sum) is the map; or "tokens": how much each token's answer draws on each (B,N,N), of
which the map is the row that the classifier reads (of the image alone: CLS's); or "concepts":
several maps (B,N,H,W). The decorator puts it into `METHODS`, from which the command line, the
README's table and the contract tests are made. Nothing here imports torch at module level: a list
of methods, or a mistyped name, must not wait for it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol

from camcli.core.errors import UsageError, format_suggestion

if TYPE_CHECKING:
    from torch import Tensor

PROVIDER_REGISTRY = "camcli.engine.providers.registry"


class MethodInput(Protocol):
    """What this registry reads of a provider: its cost, and whether it is of a class or a layer."""

    @property
    def cost(self) -> str:
        """What it takes to have the tensor."""

    @property
    def class_specific(self) -> bool:
        """Whether the tensor depends on the class."""

    @property
    def layer_specific(self) -> bool:
        """Whether there is one for each layer."""


def find_method_inputs() -> Mapping[str, MethodInput]:
    """Every tensor that a method may ask for, by name.

    Providers compute with models, so they stand above this package. They are found by name, as
    plug-ins are, and import no torch until they compute.
    """
    found: Mapping[str, MethodInput] = import_module(PROVIDER_REGISTRY).PROVIDERS
    return found


METHOD_MODULES = (
    *("cam", "gradient", "activation", "perturbation", "attention", "saliency", "factorization"),
)

# What is run where none is named: the first that the model can have, TS-CAM with a head that was
# trained for it. Chosen by GT-known on ILSVRC photographs; README has the figures.
DEFAULT_METHODS = ("tscam", "chefer", "gradcam")

ArchitectureKind = Literal["CNN", "ViT", "Swin"]
ReturnKind = Literal["map", "terms", "tokens", "concepts"]


@dataclass(frozen=True, slots=True)
class Method:
    """A method as data: its function, its needs and options, and what suits it."""

    name: str
    function: Callable[..., Tensor]
    paper: str
    works_on: tuple[ArchitectureKind, ...]
    threshold: float
    fusion: str
    caption: str
    signed: bool
    choices: Mapping[str, tuple[str, ...]]
    returns: ReturnKind
    default_layer: str
    clip_quantile: float
    option_limits: Mapping[str, float]
    max_positions: int | None
    input_names: tuple[str, ...]
    options: Mapping[str, Any]

    @property
    def inputs(self) -> tuple[MethodInput, ...]:
        """The tensors that it asks for."""
        known = find_method_inputs()
        return tuple(known[name] for name in self.input_names)

    @property
    def per_layer(self) -> bool:
        """Whether it is asked of one layer at a time, so that `--layers` applies."""
        return any(each.layer_specific for each in self.inputs)

    @property
    def class_through_layer(self) -> bool:
        """Whether it asks how the class depends on the layer, and so is blank where it does not."""
        return any(each.layer_specific and each.class_specific for each in self.inputs)

    @property
    def class_specific(self) -> bool:
        """Whether its map is about the class, and not about the image alone."""
        return any(each.class_specific for each in self.inputs)

    @property
    def costs(self) -> tuple[str, ...]:
        """What it takes besides a forward pass; or that alone."""
        besides = dict.fromkeys(each.cost for each in self.inputs)
        return tuple(cost for cost in besides if cost != "forward") or ("forward",)

    @property
    def family(self) -> str:
        """The room that it stands in: what kind of evidence it goes by."""
        whole = self.function.func if isinstance(self.function, partial) else self.function
        return whole.__module__.rpartition(".")[2]


METHODS: dict[str, Method] = {}

_MethodFunction = Callable[..., "Tensor"]


def method(
    *,
    paper: str,
    name: str | None = None,
    works_on: tuple[ArchitectureKind, ...] = ("CNN", "ViT", "Swin"),
    threshold: float = 0.2,
    fusion: str = "max",
    caption: str = "fused",
    signed: bool = False,
    choices: Mapping[str, tuple[str, ...]] | None = None,
    returns: ReturnKind = "map",
    default_layer: str = "last",
    clip_quantile: float = 1.0,
    option_limits: Mapping[str, float] | None = None,
    max_positions: int | None = None,
) -> Callable[[_MethodFunction], _MethodFunction]:
    """Register a function as a method, under its own name or the field's: "gradcam++".

    `threshold` is its paper's box threshold as a fraction of the maximum, `fusion` how it joins
    several layers, `result` what its map is called in a grid, `signed` says that its maps may be
    negative, `choices` has the values of an option that are all there are and `most` its largest,
    `default` is the layer that is read where none is named, `peak` the quantile of a map that is
    shown as its maximum, and `positions` how many a layer may have at most. Raises ValueError at
    import for a need that nothing provides, or a name taken twice.
    """

    def register(function: _MethodFunction) -> _MethodFunction:
        called = name or function.__name__
        parameters = inspect.signature(function).parameters.values()
        needs = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
        _check_registration(called, needs)
        options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        METHODS[called] = Method(
            name=called,
            function=function,
            paper=paper,
            works_on=works_on,
            threshold=threshold,
            fusion=fusion,
            caption=caption,
            signed=signed,
            choices=choices or {},
            returns=returns,
            default_layer=default_layer,
            clip_quantile=clip_quantile,
            option_limits=option_limits or {},
            max_positions=max_positions,
            input_names=needs,
            options=options,
        )
        return function

    return register


def _check_registration(name: str, input_names: tuple[str, ...]) -> None:
    known = find_method_inputs()
    for unknown in (each for each in input_names if each not in known):
        raise ValueError(
            f"method {name}: there is no provider of {unknown!r}"
            f"{format_suggestion(unknown, known)} (camcli/engine/providers has them)"
        )
    if name in METHODS:
        raise ValueError(f"method {name}: the name is taken")


def find_method(name: str) -> Method:
    """The method of that name, hyphens and case aside. Raises UsageError, with near matches."""
    known = {_normalize_method_name(key): method for key, method in METHODS.items()}
    if _normalize_method_name(name) == "scm":
        raise UsageError("SCM takes part in training only: its checkpoints are for --method tscam")
    if _normalize_method_name(name) not in known:
        raise UsageError(
            f"no method {name!r}{format_suggestion(name, METHODS)} (`camcli methods` lists them)"
        )
    return known[_normalize_method_name(name)]


def _normalize_method_name(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "")


def parse_options(chosen: Method, option_texts: Mapping[str, str]) -> dict[str, Any]:
    """A method's options from KEY=VALUE text, each of its default's type. Raises UsageError."""
    return {
        key: _parse_option_value(key, text, chosen.options[key], chosen)
        for key, text in option_texts.items()
    }


def create_variant(name: str, option_texts: Mapping[str, str]) -> Method:
    """A method with options of its own, called `name:key=value`. Raises UsageError."""
    plain = find_method(name)
    for key in option_texts:
        if key not in plain.options:
            has = ", ".join(plain.options) or "none"
            raise UsageError(f"{key} is no option of {name} (there are: {has})")
    if not option_texts:
        return plain
    full = ":".join([plain.name, *(f"{key}={value}" for key, value in option_texts.items())])
    left = {key: value for key, value in plain.options.items() if key not in option_texts}
    return replace(
        plain,
        name=full,
        function=partial(plain.function, **parse_options(plain, option_texts)),
        options=left,
    )


def _parse_option_value(key: str, text: str, default: Any, chosen: Method) -> Any:
    choices = chosen.choices.get(key)
    if choices and text not in choices:
        raise UsageError(f"--set {key}={text}: there are {', '.join(choices)}")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    if isinstance(default, str):
        value = text
    if type(value) is int and type(default) is float:
        value = float(value) if abs(value) < 2**53 else float("inf")
    if type(value) is not type(default):
        raise UsageError(f"--set {key}={text}: needs a value like {json.dumps(default)}")
    if type(value) in (int, float):
        _check_option_range(
            key, text, value, 0 if default == 0 or type(default) is float else 1, chosen
        )
    return value


def _check_option_range(key: str, text: str, value: float, minimum: int, chosen: Method) -> None:
    """Numbers are none below 0, counts none below 1 unless 0 is their default."""
    usual = 2**31 if key == "seed" else 100_000 if type(value) is int else 1000
    most = chosen.option_limits.get(key, usual)
    if not minimum <= value <= most:
        raise UsageError(f"--set {key}={text}: needs a number from {minimum} to {most:g}")


for _room in METHOD_MODULES:
    import_module(f"camcli.methods.{_room}")
