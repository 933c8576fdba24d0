"""Which class of each image to explain. Knows nothing of methods."""

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
from camcli.io.labels import Labels

if TYPE_CHECKING:
    from torch import Tensor

TARGET_CSV_COLUMNS = (("image",), ("class", "class_index"))


@dataclass(frozen=True, slots=True)
class Target:
    """A rule for the classes of an image: fixed before the model runs, or the best of its logits.

    `fixed(source)` gives the fixed classes, or none where the `ranked` highest logits are meant;
    it raises TargetError for an image without a class. `weigh` makes the score that is explained of
    logits (B,K) and classes (B,): weights (B,K), 1 for the class, less than 0 for its rivals.
    """

    find_fixed_classes: Callable[[ImageSource], tuple[int, ...]]
    top_count: int = 0
    weight_logits: Callable[[Tensor, Tensor], Tensor] = field(
        default_factory=lambda: compute_one_hot_weights
    )


def parse_target(spec: str) -> Callable[[Labels], Target]:
    """The rule that `--target` names, still to be bound to a model's class names.

    Raises UsageError for a rule that cannot be; binding raises it for a class that is not.
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
        raise UsageError("--target: a class against itself leaves nothing to explain")
    return Target(
        lambda _source: (class_index,), weight_logits=partial(compute_contrast_weights, rival_index)
    )


def compute_one_hot_weights(logits: Tensor, class_indices: Tensor) -> Tensor:
    """The score that is a class's own logit: (B,K), (B,) -> weights (B,K)."""
    import torch

    return torch.zeros_like(logits).scatter(1, class_indices[:, None], 1)


def compute_contrast_weights(rival_index: int, logits: Tensor, class_indices: Tensor) -> Tensor:
    """What speaks for a class and not for another: y_c - y_other, as weights (B,K)."""
    weights = compute_one_hot_weights(logits, class_indices)
    weights[:, rival_index] -= 1
    return weights


def compute_finer_weights(
    rival_count: int, logits: Tensor, class_indices: Tensor, alpha: float = 0.6
) -> Tensor:
    """Finer-CAM: what speaks for a class and not for those most like it, as weights (B,K).

    y_c - alpha times the mean of the `count` logits that are nearest to y_c. Source: arXiv
    2501.11309
    """
    own = logits.gather(1, class_indices[:, None])
    apart = (logits - own).abs().scatter(1, class_indices[:, None], float("inf"))
    nearest = apart.topk(rival_count, dim=1, largest=False).indices
    return compute_one_hot_weights(logits, class_indices).scatter(1, nearest, -alpha / rival_count)


def choose_target_classes(
    logits: Tensor, fixed_classes: Sequence[tuple[int, ...]], top_count: int
) -> Tensor:
    """The classes to explain: (B, K) logits -> (B, T) indices, one column a backward pass."""
    import torch

    if top_count:
        return logits.topk(top_count, dim=1).indices
    return torch.tensor(fixed_classes, device=logits.device)


def _find_folder_class(source: ImageSource, labels: Labels) -> int:
    name = source.path.absolute().parent.name
    try:
        return labels.find_class(name)
    except TargetError as error:
        raise TargetError(f"its folder is no class: {error}") from None


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
        raise UsageError(f"--target @{path}: the first row must name the columns `image,class`")
    listed: dict[str, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) <= max(image, label):
            raise UsageError(f"--target @{path}: row {number} has too few columns")
        if listed.setdefault(row[image], row[label]) != row[label]:
            raise UsageError(f"--target @{path}: row {number}: a second class for {row[image]!r}")
    return MappingProxyType(listed)


def _find_listed_class(
    source: ImageSource, class_by_image: Mapping[str, str], spec: str, labels: Labels
) -> int:
    """The class of an image that is listed as given, relative to the list, or by name."""
    beside = os.path.relpath(source.path, Path(spec[1:]).parent)
    for key in (str(source.path), beside, source.name, source.path.name):
        if key in class_by_image:
            return labels.find_class(class_by_image[key])
    raise TargetError(f"not listed in {spec[1:]}")
