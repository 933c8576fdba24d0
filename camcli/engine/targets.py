"""Targets: which classes of each image to explain."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from camcli.core.errors import TargetError, UsageError
from camcli.core.types import ImageSource
from camcli.io.cub_tables import load_cub_classes
from camcli.io.labels import Labels

if TYPE_CHECKING:
    from torch import Tensor

TARGET_CSV_COLUMNS = (("image",), ("class", "class_index"))


@dataclass(frozen=True, slots=True)
class Target:
    """A rule that chooses an image's classes: before the model runs, or by the highest logits.

    `find_fixed_classes` returns the classes of an image, or an empty tuple if the `top_count`
    highest logits choose them; it raises TargetError if an image has no class. `weight_logits`
    makes the weights (B,K) of the explained score from logits (B,K) and classes (B,): 1 for the
    class, less than 0 for its rivals.
    """

    find_fixed_classes: Callable[[ImageSource], tuple[int, ...]]
    top_count: int = 0
    weight_logits: Callable[[Tensor, Tensor], Tensor] = field(
        default_factory=lambda: compute_one_hot_weights
    )


def parse_target(spec: str) -> Callable[[Labels], Target]:
    """Read the value of `--target`: a function of a model's class names that returns the rule.

    Raises UsageError for an unknown rule; the function raises it for an unknown class.
    """
    kind, colon, rest = spec.partition(":")
    if spec == "predicted":
        return partial(_create_top_target, 1)
    if kind == "top" and colon:
        if not re.fullmatch(r"\d{1,9}", rest) or int(rest) < 1:
            raise UsageError(f"--target {spec}: write top:5, or another whole number above 0")
        return partial(_create_top_target, int(rest))
    if kind == "finer":
        if not re.fullmatch(r"\d{0,6}", rest) or rest == "0":
            raise UsageError(f"--target {spec}: write finer:3, or another number of rivals")
        return partial(_create_finer_target, int(rest or 3))
    if spec == "folder":
        return lambda labels: Target(lambda source: (_find_folder_class(source, labels),))
    if spec.startswith("@"):
        listed = _load_class_list(Path(spec[1:]))
        return lambda labels: Target(
            lambda source: (_find_listed_class(source, listed, spec, labels),)
        )
    return partial(_parse_class_target, spec)


def _create_top_target(count: int, labels: Labels) -> Target:
    if count > len(labels.names):
        raise UsageError(f"--target top:{count}: the model has {len(labels.names)} classes")
    return Target(lambda _source: (), top_count=count)


def _create_finer_target(count: int, labels: Labels) -> Target:
    if count >= len(labels.names):
        raise UsageError(f"--target finer:{count}: the model has {len(labels.names)} classes")
    return Target(lambda _source: (), 1, partial(compute_finer_weights, count))


def _parse_class_target(spec: str, labels: Labels) -> Target:
    try:
        try:
            index = labels.find_class(spec)
        except TargetError:
            own, versus, other = spec.partition("-vs-")
            if not versus:
                raise
            return _create_contrast_target(labels.find_class(own), labels.find_class(other))
    except TargetError as error:
        raise UsageError(f"--target: {error}") from None
    return Target(lambda _source: (index,))


def _create_contrast_target(class_index: int, rival_index: int) -> Target:
    if class_index == rival_index:
        raise UsageError("--target: both classes are the same; name two different classes")
    return Target(
        lambda _source: (class_index,), weight_logits=partial(compute_contrast_weights, rival_index)
    )


def compute_one_hot_weights(logits: Tensor, class_indices: Tensor) -> Tensor:
    """The class's own logit as the score: logits (B,K), classes (B,) -> weights (B,K)."""
    import torch

    return torch.zeros_like(logits).scatter(1, class_indices[:, None], 1)


def compute_contrast_weights(rival_index: int, logits: Tensor, class_indices: Tensor) -> Tensor:
    """The score y_c - y_rival, which tells a class from one rival, as weights (B,K)."""
    weights = compute_one_hot_weights(logits, class_indices)
    weights[:, rival_index] -= 1
    return weights


def compute_finer_weights(
    rival_count: int, logits: Tensor, class_indices: Tensor, alpha: float = 0.6
) -> Tensor:
    """Finer-CAM: the score that tells a class from the classes most like it, as weights (B,K).

    y_c - alpha mean_r y_r over the `rival_count` logits y_r nearest to y_c. Source: arXiv
    2501.11309
    """
    own = logits.gather(1, class_indices[:, None])
    distances = (logits - own).abs().scatter(1, class_indices[:, None], float("inf"))
    nearest = distances.topk(rival_count, dim=1, largest=False).indices
    return compute_one_hot_weights(logits, class_indices).scatter(1, nearest, -alpha / rival_count)


def choose_target_classes(
    logits: Tensor, fixed_classes: Sequence[tuple[int, ...]], top_count: int
) -> Tensor:
    """The classes to explain: logits (B,K) -> indices (B,T), one column for each backward pass."""
    import torch

    if top_count:
        return logits.topk(top_count, dim=1).indices
    return torch.tensor(fixed_classes, device=logits.device)


def _find_folder_class(source: ImageSource, labels: Labels) -> int:
    name = source.path.absolute().parent.name
    try:
        return labels.find_class(name)
    except TargetError as error:
        raise TargetError(f"its folder does not name a class: {error}") from None


def _load_class_list(path: Path) -> Mapping[str, str]:
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"--target @{path}: not a regular file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "not a CSV file in UTF-8"
        raise UsageError(f"--target @{path}: {reason}") from None
    header = [cell.strip() for cell in rows[0]] if rows else []
    image, label = (
        next((header.index(n) for n in names if n in header), None) for names in TARGET_CSV_COLUMNS
    )
    if image is None or label is None:
        if of_cub := load_cub_classes(path):
            return of_cub
        raise UsageError(
            f"--target @{path}: the first row must name the columns `image,class`"
            " (or give CUB's image_class_labels.txt, with its images.txt beside it)"
        )
    listed: dict[str, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) <= max(image, label):
            raise UsageError(f"--target @{path}: row {number} has too few columns")
        if listed.setdefault(row[image], row[label]) != row[label]:
            raise UsageError(f"--target @{path}: row {number} has another class for {row[image]!r}")
    return MappingProxyType(listed)


def _find_listed_class(
    source: ImageSource, class_by_image: Mapping[str, str], spec: str, labels: Labels
) -> int:
    """The class of an image, listed by the path given, the path from the list, or its name."""
    relative = os.path.relpath(source.path, Path(spec[1:]).parent)
    for key in (str(source.path), relative, source.name, source.path.name):
        if key in class_by_image:
            return labels.find_class(class_by_image[key])
    raise TargetError(f"not listed in {spec[1:]}")
