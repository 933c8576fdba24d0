"""The methods: pure functions from recorded tensors to maps. Knows no models, files or colours.

A method's positional parameters name what it needs, each a tensor of the batch:

    activations  (B,C,H,W)  a layer's output          asked of one layer at a time
    gradients    (B,C,H,W)  d score / d activations   asked of one layer at a time
    attention    (B,L,H,W)  CLS row of each block's attention, heads averaged
    semantic     (B,H,W)    the classifier read position by position, for the class
    class_bias   (B,)       its bias

Its keyword-only parameters are its options, set with `--set KEY=VALUE`. It returns raw maps
(B,H,W). The decorator puts it into `METHODS`, from which the command line, the README's table and
the contract tests are made. Nothing here imports torch at module level: a list of methods, or a
mistyped name, must not wait for it.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from camcli.errors import UsageError, hint

if TYPE_CHECKING:
    from torch import Tensor

NEEDS = ("activations", "gradients", "attention", "semantic", "class_bias")
ROOMS = ("classifier", "gradient", "transformer")

# What is run where none is named: the first that the model can have. Chosen by GT-known on ILSVRC
# photographs; README has the figures.
DEFAULTS = ("tscam", "gradcam")

Work = Literal["CNN", "ViT", "Swin"]


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
    needs: tuple[str, ...] = field(default=())
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def per_layer(self) -> bool:
        """Whether it is asked of one layer at a time, so that `--layers` applies."""
        return "activations" in self.needs


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
) -> Callable[[_Function], _Function]:
    """Register a function as a method, under its own name or the field's: "gradcam++".

    `threshold` is its paper's box threshold as a fraction of the maximum, `fusion` how it joins
    several layers, `result` what its map is called in a grid, `signed` says that its maps may be
    negative, and `choices` has the values of an option that are all there are. Raises ValueError at
    import for a need that nothing provides, or a name taken twice.
    """

    def register(function: _Function) -> _Function:
        called = name or function.__name__
        parameters = inspect.signature(function).parameters.values()
        needs = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
        unknown = set(needs) - set(NEEDS)
        if unknown or called in METHODS:
            raise ValueError(f"method {called}: unknown needs {unknown}, or the name is taken")
        options = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
        METHODS[called] = Method(
            *(called, function, paper, works_on, threshold, fusion, result, signed),
            *(choices or {}, needs, options),
        )
        return function

    return register


def get(name: str) -> Method:
    """The method of that name, hyphens and case aside. Raises UsageError, with near matches."""
    known = {_plain(key): method for key, method in METHODS.items()}
    if _plain(name) not in known:
        raise UsageError(f"no method {name!r}{hint(name, METHODS)} (`camcli methods` lists them)")
    return known[_plain(name)]


def _plain(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "")


def settings(chosen: Method, given: Mapping[str, str]) -> dict[str, Any]:
    """A method's options from KEY=VALUE text, each of its default's type. Raises UsageError."""
    return {
        key: _value(key, text, chosen.options[key], chosen.choices.get(key))
        for key, text in given.items()
    }


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


def _value(key: str, text: str, default: Any, choices: tuple[str, ...] | None) -> Any:
    if choices and text not in choices:
        raise UsageError(f"--set {key}={text}: there are {', '.join(choices)}")
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if type(value) is int and type(default) is float:
        value = float(value)
    if type(value) is not type(default):
        raise UsageError(f"--set {key}={text}: needs a value like {default!r}")
    return value


for _room in ROOMS:
    import_module(f"camcli.methods.{_room}")
