"""Smoothing: views of an image that differ a little, over which its maps are averaged."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from camcli.core.errors import UsageError
from camcli.core.types import FitMode

if TYPE_CHECKING:
    from torch import Tensor

    View = tuple[Tensor, bool]


@dataclass(frozen=True, slots=True)
class Smoothing:
    """A way to smooth maps: average over views, or join channels.

    `iter_views` yields views of inputs (B,3,H,W), and whether each is mirrored. `uses_eigen` joins
    channels by their first principal component. `alters_image` means that the views differ from the
    image itself, and `has_crops` that the inputs are crops of an image.
    """

    iter_views: Callable[[Tensor], Iterator[View]]
    uses_eigen: bool = False
    alters_image: bool = False
    has_crops: bool = False


def parse_smoothing(spec: str, seed: int = 0) -> Smoothing:
    """Read the value of `--smooth`: none, augment, noise:N or eigen. Raises UsageError."""
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


def parse_smoothing_options(spec: str, seed: int, fit: FitMode) -> Smoothing:
    """Read `--smooth`; ten crops are views of the image too."""
    return replace(parse_smoothing(spec, seed), has_crops=fit == "tencrop")


def _iter_unchanged(inputs: Tensor) -> Iterator[View]:
    yield inputs, False


def _iter_augmented(inputs: Tensor) -> Iterator[View]:
    """Yield six views: as they are and mirrored, each at 0.9, 1 and 1.1 times the contrast."""
    for mirrored in (False, True):
        for contrast in (0.9, 1.0, 1.1):
            yield contrast * (inputs.flip(3) if mirrored else inputs), mirrored


def _iter_noisy(inputs: Tensor, count: int, seed: int) -> Iterator[View]:
    """Yield SmoothGrad's views: with Gaussian noise of 0.15 times each image's range."""
    from camcli.core.rng import iter_noisy_copies

    for copy in iter_noisy_copies(inputs, count, 0.15, seed):
        yield copy, False


NO_SMOOTHING = parse_smoothing("none")
