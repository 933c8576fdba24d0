"""A linear head on features that were computed once.

TS-CAM's logits are the mean over positions of a 3x3 convolution, and a mean of sums is a sum of
means: logit_k = b_k + sum_uv <w_kuv, m_uv>, where m_uv is the mean of the patch tokens under the
kernel's cell (u, v), zero outside the grid. So a TS-CAM head
needs only nine means for each photograph.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn

MAX_ITERATIONS = 200
MIN_DEVIATION = 1e-6  # a feature that never varies is not divided by zero


def compute_window_means(tokens: Tensor, prefix: int, grid: tuple[int, int]) -> Tensor:
    """The nine means that a 3x3 convolution with padding 1 sees: (B,N,D) -> (B, 9 D).

    Their order is that of Conv2d's flattened weight (K, D, 3, 3), which then weights them.
    """
    rows, cols = grid
    patches = tokens[:, prefix:].transpose(1, 2).reshape(len(tokens), -1, rows, cols)
    padded = nn.functional.pad(patches, (1, 1, 1, 1))
    means = [
        padded[:, :, u : u + rows, v : v + cols].mean(dim=(2, 3))
        for u in range(3)
        for v in range(3)
    ]
    return torch.stack(means, dim=2).flatten(1)


def pool_positions(features: Tensor) -> Tensor:
    """The mean over positions: (B,C,H,W) -> (B,C)."""
    return features.mean(dim=(2, 3))


@dataclass(frozen=True, slots=True)
class LogisticClassifier:
    """Weight (K, F) and bias (K,) of a classifier, and its loss at each iteration."""

    weight: Tensor
    bias: Tensor
    losses: tuple[float, ...]

    def compute_logits(self, features: Tensor) -> Tensor:
        """(n, F) -> (n, K)."""
        return features @ self.weight.T + self.bias


@dataclass(slots=True)
class _Objective:
    """The loss that L-BFGS minimizes, on standardized features (n, F) and targets (n, K)."""

    features: Tensor
    targets: Tensor
    decay: float
    losses: list[float] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the parameters; the last column is the bias."""
        return self.targets.shape[1], self.features.shape[1] + 1

    def compute(self, flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Compute the loss and its gradient; remember the loss."""
        parameters = torch.from_numpy(flat).float().reshape(self.shape)
        weight, targets = parameters[:, :-1], self.targets
        logits = self.features @ weight.T + parameters[:, -1]
        cross = -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean(dtype=torch.float64)
        slope = (logits.softmax(dim=1) * targets.sum(dim=1, keepdim=True) - targets) / len(targets)
        gradient = torch.cat(
            [slope.T @ self.features + self.decay * weight, slope.sum(dim=0)[:, None]], dim=1
        )
        loss = float(cross + self.decay / 2 * weight.double().square().sum())
        self.losses.append(loss)
        return loss, gradient.double().flatten().numpy()


@torch.no_grad()
def fit_logistic_regression(features: Tensor, targets: Tensor, decay: float) -> LogisticClassifier:
    """Multinomial logistic regression, by L-BFGS to convergence: (n, F), (n, K) -> weights.

    min  mean_i -sum_k t_ik log softmax(W z_i + b)_k  +  decay/2 |W|^2, z the features with mean 0
    and deviation 1, which is then folded into W and b. Targets are probabilities. The problem is
    convex and the start is zero, so the result depends on no seed.
    """
    mean = features.mean(dim=0)
    deviation = features.std(dim=0, correction=0).clamp(min=MIN_DEVIATION)
    objective = _Objective((features - mean) / deviation, targets, decay)
    found = minimize(
        objective.compute,
        np.zeros(objective.shape).ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MAX_ITERATIONS},
    )
    parameters = torch.from_numpy(found.x).float().reshape(objective.shape)
    weight = parameters[:, :-1] / deviation
    return LogisticClassifier(weight, parameters[:, -1] - weight @ mean, tuple(objective.losses))
