"""The options of methods: from `KEY=VALUE` text to values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, get_args

from camcli.core.errors import UsageError
from camcli.core.types import RefineKind
from camcli.methods.registry import METHODS, Method, find_method, normalize_method_name

REFINE_OPTION = "refine"
REFINE_CHOICES = get_args(RefineKind)


def parse_methods(names: str | Sequence[str]) -> list[Method]:
    """The methods of these names, each once, in order.

    A name is `gradcam`, `package.module:function`, or either with options: `rise:masks=500`. Commas
    separate names. Raises UsageError, with near matches.
    """
    listed = [names] if isinstance(names, str) else names
    given = [part.strip() for name in listed for part in name.split(",") if part.strip()]
    if not given:
        raise UsageError(f"--method is empty; choose from {', '.join(METHODS)}")
    return [_parse_method(name) for name in dict.fromkeys(given)]


def _parse_method(text: str) -> Method:
    name, *pairs = text.split(":")
    if pairs and "=" not in pairs[0] and not _is_method_name(name):
        name = f"{name}:{pairs.pop(0)}"  # package.module:function
    for pair in pairs:
        if "=" not in pair:
            raise UsageError(f"--method {text}: write {name}:KEY=VALUE")
    return create_variant(name, dict(pair.split("=", 1) for pair in pairs))


def _is_method_name(name: str) -> bool:
    return normalize_method_name(name) in map(normalize_method_name, METHODS)


def create_seed_options(methods: Sequence[Method], seed: int) -> dict[str, Mapping[str, Any]]:
    """The option `seed` of each method that has one, by the method's name."""
    return {m.name: {"seed": seed} if "seed" in m.options else {} for m in methods}


def parse_options(chosen: Method, option_texts: Mapping[str, str]) -> dict[str, Any]:
    """A method's options from text; each value has the type of its default. Raises UsageError."""
    options = _parse_values(chosen, option_texts)
    fixed = chosen.function.keywords if isinstance(chosen.function, partial) else {}
    problem = chosen.find_problem({**chosen.options, **fixed, **options})
    if problem:
        raise UsageError(f"{chosen.name}: {problem}")
    return options


def _parse_values(chosen: Method, option_texts: Mapping[str, str]) -> dict[str, Any]:
    return {
        key: _parse_option_value(key, text, chosen.options[key], chosen)
        for key, text in option_texts.items()
    }


def create_variant(name: str, option_texts: Mapping[str, str]) -> Method:
    """A method with some options set; its name becomes `name:key=value`. Raises UsageError.

    Every method has the option `refine`, which takes the place of `--refine`.
    """
    plain = find_method(name)
    refine = option_texts.get(REFINE_OPTION, "")
    if REFINE_OPTION in option_texts and refine not in REFINE_CHOICES:
        raise UsageError(f"{name}: refine={refine}: choose from {', '.join(REFINE_CHOICES)}")
    own_texts = {key: text for key, text in option_texts.items() if key != REFINE_OPTION}
    for key in own_texts:
        if key not in plain.options:
            has = ", ".join(plain.options) or "none"
            raise UsageError(f"{name} has no option {key} (its options: {has})")
    if not option_texts:
        return plain
    full = ":".join([plain.name, *(f"{key}={value}" for key, value in option_texts.items())])
    left = {key: value for key, value in plain.options.items() if key not in own_texts}
    own = _parse_values(plain, own_texts)
    return replace(
        plain,
        name=full,
        function=partial(plain.function, **own) if own else plain.function,
        options=left,
        refine=refine,
    )


def _parse_option_value(key: str, text: str, default: Any, chosen: Method) -> Any:
    choices = chosen.choices.get(key)
    if choices and text not in choices:
        raise UsageError(f"--set {key}={text}: choose from {', '.join(choices)}")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    if isinstance(default, str):
        value = text
    if type(value) is int and type(default) is float:
        value = float(value) if abs(value) < 2**53 else float("inf")
    if type(value) is not type(default):
        raise UsageError(f"--set {key}={text}: write a value like {json.dumps(default)}")
    if type(value) in (int, float):
        _check_option_range(
            key, text, value, 0 if default == 0 or type(default) is float else 1, chosen
        )
    return value


def _check_option_range(key: str, text: str, value: float, minimum: int, chosen: Method) -> None:
    """Refuse negative numbers, counts of 0 unless 0 is their default, and very large numbers."""
    usual = 2**31 if key == "seed" else 100_000 if type(value) is int else 1000
    most = chosen.option_limits.get(key, usual)
    if not minimum <= value <= most:
        raise UsageError(f"--set {key}={text}: write a number from {minimum} to {most:g}")
