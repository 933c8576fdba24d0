"""The methods: pure functions from what was recorded to maps. Knows no models, files or colours.

A method's positional parameters name what it needs, of a batch B and one score of each image:

    inputs            (B,3,H,W)    what the network was given; 0 is the mean colour
    activations       (B,C,h,w)    a layer's output           (methods with these are asked
    gradients         (B,C,h,w)    d score / d activations     of one layer at a time)
    curvature         (B,C,h,w)    Hessian of the score by the activations, times them
    relevance         (B,C,h,w)    what AttnLRP gives to the activations
    differentiate     (B,3,H,W) -> activations and gradients of other inputs
    ablate            change, wanted (B,N) -> scores (B,N) with the layer's output changed
    rescore           alter, wanted (B,N) -> scores or probabilities (B,N) of other inputs
    input_gradients   (B,3,H,W)    d score / d inputs
    slope             (B,3,H,W) -> d score / d inputs, at other inputs
    guided_gradients  (B,3,H,W)    as guided backpropagation has it
    bias_terms        of each layer with biases (B,C,h,w): bias times d score / d its output
    attention         (B,L,h,w)    CLS row of each block's attention, heads averaged
    matrices          of each block (B,heads,N,N): its attention
    matrix_gradients  of each block (B,heads,N,N): d score / d its attention
    block_gradients   of each block (B,heads,N,N): the same of the score read after that block
    semantic          (B,h,w)      the classifier read position by position
    class_bias        (B,)         its bias

`alter(b, which)` makes inputs (n,3,H,W) of image b, `change(b, which)` outputs (n,C,h,w) of the
layer; only what is `wanted` (B,N) is computed, the rest is 0.

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
from typing import TYPE_CHECKING, Any, Literal

from camcli.core.errors import UsageError, hint

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Need:
    """What it takes to have, whether it depends on the class, and whether it is one layer's."""

    cost: str
    of_class: bool = False
    of_layer: bool = False


NEEDS: Mapping[str, Need] = {
    "inputs": Need("forward"),
    "activations": Need("forward", of_layer=True),
    "gradients": Need("gradient", of_class=True, of_layer=True),
    "curvature": Need("gradient", of_class=True, of_layer=True),
    "relevance": Need("gradient", of_class=True, of_layer=True),
    "differentiate": Need("N gradients", of_class=True, of_layer=True),
    "ablate": Need("N forwards", of_class=True, of_layer=True),
    "rescore": Need("N forwards", of_class=True),
    "input_gradients": Need("gradient", of_class=True),
    "slope": Need("N gradients", of_class=True),
    "guided_gradients": Need("gradient", of_class=True),
    "bias_terms": Need("gradient", of_class=True),
    "attention": Need("attention"),
    "matrices": Need("attention"),
    "matrix_gradients": Need("gradient", of_class=True),
    "block_gradients": Need("gradient", of_class=True),
    "semantic": Need("forward", of_class=True),
    "class_bias": Need("forward", of_class=True),
}
ROOMS = (
    *("cam", "gradient", "activation", "perturbation", "attention", "saliency", "factorization"),
)

# What is run where none is named: the first that the model can have, TS-CAM with a head that was
# trained for it. Chosen by GT-known on ILSVRC photographs; README has the figures.
DEFAULTS = ("tscam", "chefer", "gradcam")

Work = Literal["CNN", "ViT", "Swin"]
Returns = Literal["map", "terms", "tokens", "concepts"]


@dataclass(frozen=True, slots=True)
class Method:
    """A method as data: its function, its needs and options, and what suits it."""

    name: str
    function: Callable[..., Tensor]
    paper: str
    works_on: tuple[Work, ...]
    threshold: float
    fusion: str
    result: str
    signed: bool
    choices: Mapping[str, tuple[str, ...]]
    returns: Returns
    default: str
    peak: float
    most: Mapping[str, float]
    positions: int | None
    needs: tuple[str, ...]
    options: Mapping[str, Any]

    @property
    def per_layer(self) -> bool:
        """Whether it is asked of one layer at a time, so that `--layers` applies."""
        return any(NEEDS[need].of_layer for need in self.needs)

    @property
    def class_through_layer(self) -> bool:
        """Whether it asks how the class depends on the layer, and so is blank where it does not."""
        return any(NEEDS[need].of_layer and NEEDS[need].of_class for need in self.needs)

    @property
    def class_aware(self) -> bool:
        """Whether its map is about the class, and not about the image alone."""
        return any(NEEDS[need].of_class for need in self.needs)

    @property
    def costs(self) -> tuple[str, ...]:
        """What it takes besides a forward pass; or that alone."""
        besides = dict.fromkeys(NEEDS[need].cost for need in self.needs)
        return tuple(cost for cost in besides if cost != "forward") or ("forward",)

    @property
    def family(self) -> str:
        """The room that it stands in: what kind of evidence it goes by."""
        whole = self.function.func if isinstance(self.function, partial) else self.function
        return whole.__module__.rpartition(".")[2]


METHODS: dict[str, Method] = {}

_Function = Callable[..., "Tensor"]


def method(
    *,
    paper: str,
    name: str | None = None,
    works_on: tuple[Work, ...] = ("CNN", "ViT", "Swin"),
    threshold: float = 0.2,
    fusion: str = "max",
    result: str = "fused",
    signed: bool = False,
    choices: Mapping[str, tuple[str, ...]] | None = None,
    returns: Returns = "map",
    default: str = "last",
    peak: float = 1.0,
    most: Mapping[str, float] | None = None,
    positions: int | None = None,
) -> Callable[[_Function], _Function]:
    """Register a function as a method, under its own name or the field's: "gradcam++".

    `threshold` is its paper's box threshold as a fraction of the maximum, `fusion` how it joins
    several layers, `result` what its map is called in a grid, `signed` says that its maps may be
    negative, `choices` has the values of an option that are all there are and `most` its largest,
    `default` is the layer that is read where none is named, `peak` the quantile of a map that is
    shown as its maximum, and `positions` how many a layer may have at most. Raises ValueError at
    import for a need that nothing provides, or a name taken twice.
    """

    def register(function: _Function) -> _Function:
        called = name or function.__name__
        parameters = inspect.signature(function).parameters.values()
        needs = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
        unknown = set(needs) - NEEDS.keys()
        if unknown or called in METHODS:
            raise ValueError(f"method {called}: unknown needs {unknown}, or the name is taken")
        options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        METHODS[called] = Method(
            name=called,
            function=function,
            paper=paper,
            works_on=works_on,
            threshold=threshold,
            fusion=fusion,
            result=result,
            signed=signed,
            choices=choices or {},
            returns=returns,
            default=default,
            peak=peak,
            most=most or {},
            positions=positions,
            needs=needs,
            options=options,
        )
        return function

    return register


def get(name: str) -> Method:
    """The method of that name, hyphens and case aside. Raises UsageError, with near matches."""
    known = {_plain(key): method for key, method in METHODS.items()}
    if _plain(name) == "scm":
        raise UsageError("SCM takes part in training only: its checkpoints are for --method tscam")
    if _plain(name) not in known:
        raise UsageError(f"no method {name!r}{hint(name, METHODS)} (`camcli methods` lists them)")
    return known[_plain(name)]


def _plain(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "")


def settings(chosen: Method, given: Mapping[str, str]) -> dict[str, Any]:
    """A method's options from KEY=VALUE text, each of its default's type. Raises UsageError."""
    return {key: _value(key, text, chosen.options[key], chosen) for key, text in given.items()}


def variant(name: str, given: Mapping[str, str]) -> Method:
    """A method with options of its own, called `name:key=value`. Raises UsageError."""
    plain = get(name)
    for key in given:
        if key not in plain.options:
            has = ", ".join(plain.options) or "none"
            raise UsageError(f"{key} is no option of {name} (there are: {has})")
    if not given:
        return plain
    full = ":".join([plain.name, *(f"{key}={value}" for key, value in given.items())])
    left = {key: value for key, value in plain.options.items() if key not in given}
    return replace(
        plain,
        name=full,
        function=partial(plain.function, **settings(plain, given)),
        options=left,
    )


def _value(key: str, text: str, default: Any, chosen: Method) -> Any:
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
        _within(key, text, value, 0 if default == 0 or type(default) is float else 1, chosen)
    return value


def _within(key: str, text: str, value: float, least: int, chosen: Method) -> None:
    """Numbers are none below 0, counts none below 1 unless 0 is their default."""
    usual = 2**31 if key == "seed" else 100_000 if type(value) is int else 1000
    most = chosen.most.get(key, usual)
    if not least <= value <= most:
        raise UsageError(f"--set {key}={text}: needs a number from {least} to {most:g}")


for _room in ROOMS:
    import_module(f"camcli.methods.{_room}")
