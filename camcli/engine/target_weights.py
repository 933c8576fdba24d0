"""The score that an explanation is of, as weights of the logits: one class, or a contrast."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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


def compute_low_weights(logits: Tensor, class_indices: Tensor) -> Tensor:
    """The score -y of a regression, which tells what lowers its value, as weights (B,K)."""
    return -compute_one_hot_weights(logits, class_indices)
