"""Target rules: how each chooses the classes of an image, and the score that is explained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from camcli.core.types import ImageSource
from camcli.engine.target_weights import compute_one_hot_weights

if TYPE_CHECKING:
    from torch import Tensor

    ChosenClasses = tuple[Tensor, Tensor]


def _fix_no_classes(_source: ImageSource) -> tuple[int, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class TargetRule:
    """A rule that chooses an image's classes: before the network runs, or from its outputs.

    `spec` is the rule as the user wrote it. `find_fixed_classes` returns the classes of an image,
    or an empty tuple if `choose_classes` chooses them; it raises TargetError if an image has no
    class. `choose_classes` turns logits and probabilities (B,K) into classes (B,T), and whether the
    rule is true of each (B,T). `weight_logits` makes the weights (B,K) of the explained score from
    logits (B,K) and classes (B,): 1 for the class, less than 0 for its rivals.
    """

    spec: str
    find_fixed_classes: Callable[[ImageSource], tuple[int, ...]] = _fix_no_classes
    choose_classes: Callable[[Tensor, Tensor], ChosenClasses] | None = None
    weight_logits: Callable[[Tensor, Tensor], Tensor] = compute_one_hot_weights


@dataclass(frozen=True, slots=True)
class Target:
    """All rules of a run: each adds its classes to those of an image."""

    rules: tuple[TargetRule, ...]

    def find_fixed_classes(self, source: ImageSource) -> tuple[tuple[int, ...], ...]:
        """The classes of an image that each rule fixes. Raises TargetError if it has no class."""
        return tuple(rule.find_fixed_classes(source) for rule in self.rules)


@dataclass(frozen=True, slots=True)
class TargetColumn:
    """One class of each image (B,), the weights (B,K) of its score, and the rule that chose it.

    Images may have different numbers of classes: `is_valid` (B,) is False where an image has none.
    """

    spec: str
    class_indices: Tensor
    logit_weights: Tensor
    is_valid: Tensor


def choose_top(count: int, logits: Tensor, _probabilities: Tensor) -> ChosenClasses:
    """The classes of the highest logits."""
    indices = logits.topk(count, dim=1).indices
    return indices, indices >= 0


def choose_above(probability: float, _logits: Tensor, probabilities: Tensor) -> ChosenClasses:
    """The classes of at least this probability, the most probable first.

    The first column always has the most probable class, to tell why an image has no class.
    """
    count = int((probabilities >= probability).sum(dim=1).max())
    highest = probabilities.topk(max(1, count), dim=1)
    return highest.indices, highest.values >= probability


def choose_nothing(logits: Tensor, _probabilities: Tensor) -> ChosenClasses:
    """One column without a class, for networks that have none."""
    first = logits[:, :1].detach() * 0
    return first.long(), first == 0


def create_class_columns(logits: Tensor, class_indices: Tensor) -> list[TargetColumn]:
    """One column for each of the classes (B,T), explained by its own logit."""
    import torch

    every = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
    return [
        TargetColumn("", column, compute_one_hot_weights(logits, column), every)
        for column in class_indices.T
    ]


def choose_target_columns(
    target: Target,
    fixed_classes: Sequence[tuple[tuple[int, ...], ...]],
    to_probabilities: Callable[[Tensor], Tensor],
    logits: Tensor,
) -> list[TargetColumn]:
    """The classes to explain: logits (B,K) -> columns (B,), one for each backward pass.

    `fixed_classes` are the classes of each image that the rules fix, as `find_fixed_classes` of the
    target returns them.
    """
    import torch

    probabilities = to_probabilities(logits)
    columns = []
    for number, rule in enumerate(target.rules):
        if rule.choose_classes:
            indices, is_valid = rule.choose_classes(logits, probabilities)
        else:
            indices = torch.tensor([of_image[number] for of_image in fixed_classes])
            indices = indices.to(logits.device)
            is_valid = indices >= 0
        columns += [
            TargetColumn(rule.spec, own, rule.weight_logits(logits, own), valid)
            for own, valid in zip(indices.T, is_valid.T, strict=True)
        ]
    return columns
