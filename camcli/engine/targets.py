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
from camcli.core.types import Source
from camcli.io.labels import Labels

if TYPE_CHECKING:
    from torch import Tensor

HEADER = (("image",), ("class", "class_index"))


@dataclass(frozen=True, slots=True)
class Target:
    """A rule for the classes of an image: fixed before the model runs, or the best of its logits.

    `fixed(source)` gives the fixed classes, or none where the `ranked` highest logits are meant;
    it raises TargetError for an image without a class. `weigh` makes the score that is explained of
    logits (B,K) and classes (B,): weights (B,K), 1 for the class, less than 0 for its rivals.
    """

    fixed: Callable[[Source], tuple[int, ...]]
    ranked: int = 0
    weigh: Callable[[Tensor, Tensor], Tensor] = field(default_factory=lambda: one_class)


def parse(spec: str) -> Callable[[Labels], Target]:
    """The rule that `--target` names, still to be bound to a model's class names.

    Raises UsageError for a rule that cannot be; binding raises it for a class that is not.
    """
    kind, colon, rest = spec.partition(":")
    if spec == "predicted":
        return partial(_ranked, 1)
    if kind == "top" and colon:
        if not re.fullmatch(r"\d{1,9}", rest) or int(rest) < 1:
            raise UsageError(f"--target {spec}: write top:5, or another whole number above 0")
        return partial(_ranked, int(rest))
    if kind == "finer":
        if not re.fullmatch(r"\d{0,6}", rest) or rest == "0":
            raise UsageError(f"--target {spec}: write finer:3, or another number of rivals")
        return partial(_finer, int(rest or 3))
    if spec == "folder":
        return lambda labels: Target(lambda source: (_folder(source, labels),))
    if spec.startswith("@"):
        listed = _read(Path(spec[1:]))
        return lambda labels: Target(lambda source: (_listed(source, listed, spec, labels),))
    return partial(_one_class, spec)


def _ranked(count: int, labels: Labels) -> Target:
    if count > len(labels.names):
        raise UsageError(f"--target top:{count}: the model has {len(labels.names)} classes")
    return Target(lambda _source: (), ranked=count)


def _finer(count: int, labels: Labels) -> Target:
    if count >= len(labels.names):
        raise UsageError(f"--target finer:{count}: the model has {len(labels.names)} classes")
    return Target(lambda _source: (), 1, partial(against_nearest, count))


def _one_class(spec: str, labels: Labels) -> Target:
    try:
        try:
            index = labels.find_class(spec)
        except TargetError:
            own, versus, other = spec.partition("-vs-")
            if not versus:
                raise
            return _contrast(labels.find_class(own), labels.find_class(other))
    except TargetError as error:
        raise UsageError(f"--target: {error}") from None
    return Target(lambda _source: (index,))


def _contrast(own: int, other: int) -> Target:
    if own == other:
        raise UsageError("--target: a class against itself leaves nothing to explain")
    return Target(lambda _source: (own,), weigh=partial(against, other))


def one_class(logits: Tensor, classes: Tensor) -> Tensor:
    """The score that is a class's own logit: (B,K), (B,) -> weights (B,K)."""
    import torch

    return torch.zeros_like(logits).scatter(1, classes[:, None], 1)


def against(other: int, logits: Tensor, classes: Tensor) -> Tensor:
    """What speaks for a class and not for another: y_c - y_other, as weights (B,K)."""
    weights = one_class(logits, classes)
    weights[:, other] -= 1
    return weights


def against_nearest(count: int, logits: Tensor, classes: Tensor, alpha: float = 0.6) -> Tensor:
    """Finer-CAM: what speaks for a class and not for those most like it, as weights (B,K).

    y_c - alpha times the mean of the `count` logits that are nearest to y_c. Source: arXiv
    2501.11309
    """
    own = logits.gather(1, classes[:, None])
    apart = (logits - own).abs().scatter(1, classes[:, None], float("inf"))
    nearest = apart.topk(count, dim=1, largest=False).indices
    return one_class(logits, classes).scatter(1, nearest, -alpha / count)


def choose(logits: Tensor, wanted: Sequence[tuple[int, ...]], ranked: int) -> Tensor:
    """The classes to explain: (B, K) logits -> (B, T) indices, one column a backward pass."""
    import torch

    if ranked:
        return logits.topk(ranked, dim=1).indices
    return torch.tensor(wanted, device=logits.device)


def _folder(source: Source, labels: Labels) -> int:
    name = source.path.absolute().parent.name
    try:
        return labels.find_class(name)
    except TargetError as error:
        raise TargetError(f"its folder is no class: {error}") from None


def _read(path: Path) -> Mapping[str, str]:
    if os.path.exists(path) and not os.path.isfile(path):
        raise UsageError(f"--target @{path}: not a regular file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "not a CSV file in UTF-8"
        raise UsageError(f"--target @{path}: {reason}") from None
    header = [cell.strip() for cell in rows[0]] if rows else []
    image, label = (next((header.index(n) for n in names if n in header), None) for names in HEADER)
    if image is None or label is None:
        raise UsageError(f"--target @{path}: the first row must name the columns `image,class`")
    listed: dict[str, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        if len(row) <= max(image, label):
            raise UsageError(f"--target @{path}: row {number} has too few columns")
        if listed.setdefault(row[image], row[label]) != row[label]:
            raise UsageError(f"--target @{path}: row {number}: a second class for {row[image]!r}")
    return MappingProxyType(listed)


def _listed(source: Source, listed: Mapping[str, str], spec: str, labels: Labels) -> int:
    """The class of an image that is listed as given, relative to the list, or by name."""
    beside = os.path.relpath(source.path, Path(spec[1:]).parent)
    for key in (str(source.path), beside, source.name, source.path.name):
        if key in listed:
            return labels.find_class(listed[key])
    raise TargetError(f"not listed in {spec[1:]}")
