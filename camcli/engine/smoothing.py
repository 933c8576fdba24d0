"""The same image seen a little differently several times, so that maps can be averaged.

Knows nothing of methods.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from camcli.core.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    View = tuple[Tensor, bool]


@dataclass(frozen=True, slots=True)
class Smoothing:
    """Views of inputs (B,3,H,W), each with whether it is mirrored; and how channels are joined.

    `moves` says that the views are others than the image itself, `cropped` that inputs are crops.
    """

    iter_views: Callable[[Tensor], Iterator[View]]
    uses_eigen: bool = False
    alters_image: bool = False
    has_crops: bool = False


def parse_smoothing(spec: str, seed: int = 0) -> Smoothing:
    """What `--smooth` names: none, augment, noise:N or eigen. Raises UsageError."""
    noise = re.fullmatch(r"noise(?::(\d{1,4}))?", spec)
    if noise and noise[1] != "0":
        count = int(noise[1] or 10)
        return Smoothing(lambda inputs: _iter_noisy(inputs, count, seed), alters_image=True)
    known = {
        "none": Smoothing(_iter_unchanged),
        "augment": Smoothing(_iter_augmented, alters_image=True),
        "eigen": Smoothing(_iter_unchanged, uses_eigen=True),
    }
    if spec not in known:
        raise UsageError(f"--smooth {spec}: write none, augment, noise:10 or eigen")
    return known[spec]


def _iter_unchanged(inputs: Tensor) -> Iterator[View]:
    yield inputs, False


def _iter_augmented(inputs: Tensor) -> Iterator[View]:
    """Mirrored and not, each at 0.9, 1 and 1.1 of its contrast: six views."""
    for mirrored in (False, True):
        for contrast in (0.9, 1.0, 1.1):
            yield contrast * (inputs.flip(3) if mirrored else inputs), mirrored


def _iter_noisy(inputs: Tensor, count: int, seed: int) -> Iterator[View]:
    """SmoothGrad's views: Gaussian noise of 0.15 of each image's range."""
    from camcli.core.rng import iter_noisy_copies

    for copy in iter_noisy_copies(inputs, count, 0.15, seed):
        yield copy, False


NO_SMOOTHING = parse_smoothing("none")
