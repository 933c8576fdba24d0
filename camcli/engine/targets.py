"""Targets: which classes of each image to explain."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.core.errors import TargetError, UsageError, format_suggestion
from camcli.core.types import ImageSource, OutputKind
from camcli.engine.target_lists import find_listed_class, load_class_list
from camcli.engine.target_rules import (
    Target,
    TargetRule,
    choose_above,
    choose_nothing,
    choose_top,
)
from camcli.engine.target_weights import (
    compute_contrast_weights,
    compute_finer_weights,
    compute_low_weights,
    compute_one_hot_weights,
)
from camcli.io.labels import Labels

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_TARGET = "predicted"
LIKE_PREFIX = "like:"

BindTarget = Callable[..., Target]
BindRule = Callable[[Labels, OutputKind], tuple[TargetRule, ...]]


def parse_target(specs: str | Sequence[str]) -> BindTarget:
    """Read the values of `--target`: a function that returns the rules for a model.

    The function takes the class names and the kind of the outputs. Raises UsageError for an unknown
    rule; the function raises it for an unknown class.
    """
    listed = [specs] if isinstance(specs, str) else list(dict.fromkeys(specs))
    if not listed:
        raise UsageError("target is empty; write predicted, or the name of a class")
    references = list_references(listed)
    if references and len(references) < len(listed):
        raise UsageError("--target like: explains a similarity; it does not go with other targets")
    binders = [_parse_rule(spec) for spec in listed]

    def bind(labels: Labels, output_kind: OutputKind = "softmax") -> Target:
        if output_kind == "similarity":
            return _create_similarity_target(listed)
        _check_output_kind(listed, output_kind)
        if output_kind == "embedding":
            return Target((TargetRule("none", choose_classes=choose_nothing),))
        return Target(tuple(rule for binder in binders for rule in binder(labels, output_kind)))

    return bind


def list_references(specs: Sequence[str]) -> list[Path]:
    """The images or folders of `like:` targets. Raises UsageError if one does not exist."""
    paths = [Path(spec.removeprefix(LIKE_PREFIX)) for spec in specs if is_reference(spec)]
    for path in paths:
        if not path.name or not os.path.exists(path):
            raise UsageError(f"--target like:{path}: no such image or folder")
    return paths


def is_reference(spec: str) -> bool:
    """Whether a target is a reference image."""
    return spec.startswith(LIKE_PREFIX)


def _check_output_kind(specs: Sequence[str], output_kind: OutputKind) -> None:
    if output_kind == "undecided":
        raise UsageError(
            "the model has a single output, which may be a class or a value: add --head sigmoid "
            "(yes or no, or two names with --labels) or --head regression (a value)"
        )
    if output_kind == "embedding" and list(specs) != [DEFAULT_TARGET]:
        raise UsageError(
            f"--target {specs[0]}: the model has no classes; write --target like:REFERENCE.jpg "
            "for what makes an image similar to another, or omit --target"
        )


def _create_similarity_target(specs: Sequence[str]) -> Target:
    return Target(tuple(_create_fixed_rule(spec, n) for n, spec in enumerate(specs)))


def _parse_rule(spec: str) -> BindRule:
    if spec in RULES_BY_WORD:
        return partial(RULES_BY_WORD[spec], spec)
    if spec.startswith("@"):
        listed = load_class_list(Path(spec[1:]))
        return lambda labels, _kind: (
            TargetRule(spec, lambda source: (find_listed_class(source, listed, spec, labels),)),
        )
    kind, colon, value = spec.partition(":")
    if kind in VALUE_PARSERS and (colon or kind == "finer"):
        return VALUE_PARSERS[kind](spec, value)
    return partial(_create_class_rules, spec)


def _parse_top(spec: str, value: str) -> BindRule:
    if not re.fullmatch(r"\d{1,9}", value) or int(value) < 1:
        raise UsageError(f"--target {spec}: write top:5, or another whole number above 0")
    return partial(_create_top_rule, spec, int(value))


def _parse_above(spec: str, value: str) -> BindRule:
    if not re.fullmatch(r"0?\.\d{1,9}|[01]\.?|1\.0{1,9}", value):
        raise UsageError(f"--target {spec}: write above:0.5, or another probability from 0 to 1")
    return partial(_create_above_rule, spec, float(value))


def _parse_finer(spec: str, value: str) -> BindRule:
    if not re.fullmatch(r"\d{0,6}", value) or value == "0":
        raise UsageError(f"--target {spec}: write finer:3, or another number of rivals")
    return partial(_create_finer_rule, spec, int(value or 3))


VALUE_PARSERS = {"top": _parse_top, "above": _parse_above, "finer": _parse_finer}


def _create_folder_rule(
    spec: str, labels: Labels, _output_kind: OutputKind
) -> tuple[TargetRule, ...]:
    return (TargetRule(spec, lambda source: (_find_folder_class(source, labels),)),)


def _create_predicted_rule(
    spec: str, labels: Labels, output_kind: OutputKind
) -> tuple[TargetRule, ...]:
    if output_kind == "regression":
        return _create_all_rules(spec, labels, output_kind)
    return (TargetRule(spec, choose_classes=partial(choose_top, 1)),)


def _create_all_rules(
    spec: str, labels: Labels, _output_kind: OutputKind
) -> tuple[TargetRule, ...]:
    return tuple(_create_fixed_rule(spec, index) for index in range(len(labels.names)))


RULES_BY_WORD = {
    "predicted": _create_predicted_rule,
    "all": _create_all_rules,
    "folder": _create_folder_rule,
}


def _create_top_rule(
    spec: str, count: int, labels: Labels, output_kind: OutputKind
) -> tuple[TargetRule, ...]:
    _check_has_probabilities(spec, output_kind)
    if count > len(labels.names):
        raise UsageError(f"--target {spec}: the model has {len(labels.names)} classes")
    return (TargetRule(spec, choose_classes=partial(choose_top, count)),)


def _create_above_rule(
    spec: str, probability: float, _labels: Labels, output_kind: OutputKind
) -> tuple[TargetRule, ...]:
    _check_has_probabilities(spec, output_kind)
    return (TargetRule(spec, choose_classes=partial(choose_above, probability)),)


def _create_finer_rule(
    spec: str, count: int, labels: Labels, output_kind: OutputKind
) -> tuple[TargetRule, ...]:
    _check_has_probabilities(spec, output_kind)
    if count >= len(labels.names):
        raise UsageError(f"--target {spec}: the model has {len(labels.names)} classes")
    weigh = partial(compute_finer_weights, count)
    return (TargetRule(spec, choose_classes=partial(choose_top, 1), weight_logits=weigh),)


def _check_has_probabilities(spec: str, output_kind: OutputKind) -> None:
    if output_kind == "regression":
        raise UsageError(
            f"--target {spec}: a regression has no probabilities; write high, low or an output"
        )


def _create_class_rules(
    spec: str, labels: Labels, output_kind: OutputKind
) -> tuple[TargetRule, ...]:
    """The rule of a class or output that is named; in a regression also `high` and `low`."""
    side, _, name = spec.partition(":")
    if output_kind == "regression" and side in ("high", "low"):
        indices = [_find_class(name, labels)] if name else range(len(labels.names))
        weigh = compute_low_weights if side == "low" else compute_one_hot_weights
        return tuple(_create_fixed_rule(spec, index, weight_logits=weigh) for index in indices)
    return (_parse_class_rule(spec, labels),)


def _create_fixed_rule(
    spec: str,
    index: int,
    weight_logits: Callable[[Tensor, Tensor], Tensor] = compute_one_hot_weights,
) -> TargetRule:
    return TargetRule(spec, lambda _source: (index,), weight_logits=weight_logits)


def _find_class(name: str, labels: Labels) -> int:
    try:
        return labels.find_class(name)
    except TargetError as error:
        raise UsageError(f"--target: {error}") from None


def _parse_class_rule(spec: str, labels: Labels) -> TargetRule:
    try:
        return _create_fixed_rule(spec, labels.find_class(spec))
    except TargetError as error:
        own, versus, other = spec.partition("-vs-")
        if not versus:
            raise UsageError(f"--target: {error}{_suggest_target(spec)}") from None
    own_index, rival_index = (_find_class(name, labels) for name in (own, other))
    if own_index == rival_index:
        raise UsageError("--target: both classes are the same; name two different classes")
    weigh = partial(compute_contrast_weights, rival_index)
    return _create_fixed_rule(spec, own_index, weight_logits=weigh)


def _suggest_target(spec: str) -> str:
    """What the user may have meant, besides the name of a class."""
    if spec in ("high", "low"):
        return f"; {spec} is for --head regression"
    parts = [part.strip() for part in spec.split(",") if part.strip()]
    if len(parts) > 1:
        return f"; repeat the option: {' '.join(f'--target {part!r}' for part in parts)}"
    near = format_suggestion(spec.partition(":")[0], (*RULES_BY_WORD, *VALUE_PARSERS, "like"))
    return f"; as a rule,{near.removeprefix(';')}" if near else ""


def _find_folder_class(source: ImageSource, labels: Labels) -> int:
    name = source.path.absolute().parent.name
    try:
        return labels.find_class(name)
    except TargetError as error:
        raise TargetError(f"its folder does not name a class: {error}") from None
