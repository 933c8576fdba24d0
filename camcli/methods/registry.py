"""The registry of methods: pure functions from recorded tensors to maps.

The positional parameters of a method name the tensors that it asks for. A provider in
`camcli.engine.providers` computes each tensor, for a batch B and one score of each image; its
docstring gives the meaning and the shape. camcli calls a method for one layer at a time if it asks
for a layer's tensors.

The keyword-only parameters of a method are its options, set with `--set KEY=VALUE`. The option
`seed` is set with `--seed`. `returns` tells what the method returns:

- "map": a raw map (B,H,W).
- "terms": the share of each channel (B,C,H,W); the map is relu of their sum.
- "tokens": how much each token depends on each other token (B,N,N). The map is the row of the
  token that the classifier reads, or of CLS if the map does not depend on the class.
- "concepts": several maps (B,N,H,W).

The decorator adds the method to `METHODS`, which the command line, the tables in the documentation
and the contract tests read. Nothing here imports torch at module level, so that a list of methods
or a mistyped name answers at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Literal, get_args

from camcli.core.errors import UsageError, format_suggestion
from camcli.methods._inputs import MethodInput, find_method_inputs

if TYPE_CHECKING:
    from torch import Tensor

# Without --method, camcli runs the first of these that works on the model; TS-CAM only with a head
# that was trained for it, MCTformer only with a token for each class. The others were chosen by
# GT-known on ILSVRC photographs: docs/evaluation.md.
DEFAULT_METHODS = ("mctformer", "tscam", "chefer", "gradcam")

# The same for a network without classes: both show what the network attends to in any image.
DEFAULT_CLASS_BLIND_METHODS = ("attention", "eigencam")

# The order in which methods are listed, by module; modules with other names come last.
LISTING_ORDER = (
    *("cam", "gradient", "activation", "perturbation", "masking", "segments", "attention"),
    *("token_attention", "token_classes", "relevance", "saliency", "paths", "factorization"),
)

ArchitectureKind = Literal["CNN", "ViT", "Swin", "MCTformer"]
ReturnKind = Literal["map", "terms", "tokens", "concepts"]


@dataclass(frozen=True, slots=True)
class Method:
    """A method as data: its function, inputs, options, and settings."""

    name: str
    function: Callable[..., Tensor]
    paper: str | None
    family: str
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
    options_for_chosen_blocks: Mapping[str, Any]
    find_problem: Callable[[Mapping[str, Any]], str | None]
    input_names: tuple[str, ...]
    options: Mapping[str, Any]
    refined_threshold: float | str
    refine: str = ""  # the refinement of a variant such as `layercam:refine=affinity`

    @property
    def inputs(self) -> tuple[MethodInput, ...]:
        """The tensors that the method asks for."""
        known = find_method_inputs()
        return tuple(known[name] for name in self.input_names)

    @property
    def is_builtin(self) -> bool:
        """Whether the function is part of camcli, and not a user's own or an installed one."""
        plain = self.function.func if isinstance(self.function, partial) else self.function
        return (plain.__module__ or "").startswith("camcli.methods.")

    @property
    def per_layer(self) -> bool:
        """Whether the method reads one layer at a time, so that `--layers` applies."""
        return any(each.layer_specific for each in self.inputs)

    @property
    def class_through_layer(self) -> bool:
        """Whether the map is empty if the class score does not depend on the layer."""
        return any(each.layer_specific and each.class_specific for each in self.inputs)

    @property
    def class_specific(self) -> bool:
        """Whether the map depends on the class, and not only on the image."""
        return any(each.class_specific for each in self.inputs)

    @property
    def costs(self) -> tuple[str, ...]:
        """The costs of the method besides one forward pass, or only "forward"."""
        besides = dict.fromkeys(each.cost for each in self.inputs)
        return tuple(cost for cost in besides if cost != "forward") or ("forward",)


METHODS: dict[str, Method] = {}

_MethodFunction = Callable[..., "Tensor"]


def method(
    misplaced: None = None,
    *,
    paper: str | None = None,
    name: str | None = None,
    family: str | None = None,
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
    options_for_chosen_blocks: Mapping[str, Any] | None = None,
    refined_threshold: float | str = "otsu",
    find_problem: Callable[[Mapping[str, Any]], str | None] = lambda _options: None,
) -> Callable[[_MethodFunction], _MethodFunction]:
    """Register a function as a method, under its own name or under `name`, such as "gradcam++".

    `paper` is the address of the method's source, and `family` the kind of evidence it uses: by
    default the name of its module. `threshold` is the paper's box threshold, as a fraction of the
    map's maximum, and `refined_threshold` the one after `--refine affinity`. `fusion` is how it
    joins several layers, `caption` the label of its map in a grid. A `signed` method may give
    negative values. `choices` lists all values of an option, and `option_limits` has an option's
    largest value. `default_layer` is the layer to read when the user names none. `clip_quantile` is
    the quantile of a map that is shown as its maximum. `max_positions` is the largest number of
    positions that a layer may have, and `options_for_chosen_blocks` gives options that choose
    blocks when the user chose these. `find_problem` says why options cannot work here, such as a
    missing package, before a network is loaded.

    Raises UsageError for a parameter that no provider offers, an option without a default, a name
    that another function has, or a decorator without parentheses.
    """
    if name is not None and (not name or set(name) & set(":,=")):
        raise UsageError(f"method {name!r}: a name must not be empty, and has no colon, comma or =")
    if misplaced is not None:
        raise UsageError("write @method() with parentheses")
    if returns not in get_args(ReturnKind):
        raise UsageError(f"returns={returns!r}: choose from {', '.join(get_args(ReturnKind))}")

    def register(function: _MethodFunction) -> _MethodFunction:
        called = name or getattr(function, "__name__", "")
        if not called:
            raise UsageError("a method without a name: write @method(name=...)")
        _check_name_is_free(called, function)
        input_names, options = _read_parameters(called, function)
        METHODS[called] = Method(
            name=called,
            function=function,
            paper=paper,
            # Code that runs by exec has no module.
            family=family or (function.__module__ or "__main__").rpartition(".")[2],
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
            options_for_chosen_blocks=options_for_chosen_blocks or {},
            find_problem=find_problem,
            input_names=input_names,
            options=options,
            refined_threshold=refined_threshold,
        )
        return function

    return register


def _check_name_is_free(name: str, function: _MethodFunction) -> None:
    """Refuse the name of another function; a notebook may define the same one again."""
    taken = {normalize_method_name(known): m.function for known, m in METHODS.items()}
    other = taken.get(normalize_method_name(name))
    if other and _locate(other) != _locate(function):
        raise UsageError(
            f"method {name}: {other.__module__} already has a method with this name; choose "
            f"another with @method(name=...)"
        )


def _locate(function: Callable[..., Any]) -> tuple[str, str]:
    """Where a function is defined; a partial has no place of its own."""
    return getattr(function, "__module__", ""), getattr(function, "__qualname__", repr(function))


def _read_parameters(
    name: str, function: _MethodFunction
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The inputs that a method asks for, and its options with their defaults."""
    parameters = inspect.signature(function).parameters.values()
    options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    input_names = tuple(p.name for p in parameters if p.name not in options)
    inputs = find_method_inputs()
    for key in input_names:
        if key not in inputs:
            near = format_suggestion(key, inputs)
            known = ", ".join(inputs)
            raise UsageError(
                f"method {name}: camcli has no input {key!r}{near} (inputs: {known}; "
                f"write the options of a method after a *)"
            )
    for key, default in options.items():
        if type(default) not in (bool, int, float, str):
            raise UsageError(
                f"method {name}: the default of option {key} must be a number, a text or a bool"
            )
    return input_names, options


def find_method(name: str) -> Method:
    """The method of that name; letter case and hyphens do not matter.

    The name is that of one of camcli's methods or of an installed one, or
    `package.module:function`: camcli then imports the module. Raises UsageError with near matches.
    """
    from camcli.methods.plugins import (
        find_installed_method,
        list_installed_methods,
        load_user_method,
    )

    if ":" in name:
        return load_user_method(name)
    plain = normalize_method_name(name)
    known = {normalize_method_name(key): method for key, method in METHODS.items()}
    if plain == "scm":
        raise UsageError("SCM is a training module: use --method tscam for its checkpoints")
    found = known.get(plain) or find_installed_method(name)
    if found is None:
        installed = (entry_point.name for entry_point in list_installed_methods())
        near = format_suggestion(name, [*METHODS, *installed])
        raise UsageError(f"no method {name!r}{near} (`camcli methods` lists them)")
    return found


def list_cheap_methods() -> list[Method]:
    """The methods that need only a few passes of the network."""
    return [m for m in METHODS.values() if not any(cost.startswith("N ") for cost in m.costs)]


def normalize_method_name(name: str) -> str:
    """A name without letter case, hyphens and underscores: "Guided-GradCAM" -> "guidedgradcam"."""
    return name.casefold().replace("-", "").replace("_", "")


def _import_method_modules() -> None:
    """Import every module of this package, so that its methods register themselves."""
    import camcli.methods as package

    names = sorted(found.name for found in iter_modules(package.__path__))
    rank = {name: number for number, name in enumerate(LISTING_ORDER)}
    for name in sorted(names, key=lambda name: rank.get(name, len(rank))):
        if not name.startswith("_"):
            import_module(f"camcli.methods.{name}")


_import_method_modules()
