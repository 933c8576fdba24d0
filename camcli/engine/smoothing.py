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

MIN_SIDE, MAX_SIDE = 16, 2048  # pixels of the views of `scales`


@dataclass(frozen=True, slots=True)
class Smoothing:
    """A way to smooth maps: average over views, or join channels.

    `iter_views` yields views of inputs (B,3,H,W), and whether each is mirrored. `uses_eigen` joins
    channels by their first principal component. `alters_image` means that the views differ from the
    image itself, and `has_crops` that the inputs are crops of an image. `sides` are the short sides
    of views that are larger or smaller than the image.
    """

    iter_views: Callable[[Tensor], Iterator[View]]
    uses_eigen: bool = False
    alters_image: bool = False
    has_crops: bool = False
    sides: tuple[int, ...] = ()


def parse_smoothing(spec: str, seed: int = 0) -> Smoothing:
    """Read the value of `--smooth`: none, augment, noise:N, scales:S,S or eigen.

    Raises UsageError.
    """
    if spec.startswith("scales:"):
        return _parse_scales(spec)
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
        raise UsageError(
            f"--smooth {spec}: write none, augment, noise:10, scales:160,224,320 or eigen"
        )
    return known[spec]


def _parse_scales(spec: str) -> Smoothing:
    texts = spec.removeprefix("scales:").split(",")
    sides = tuple(int(text) if re.fullmatch(r" *\d{1,4} *", text) else 0 for text in texts)
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in sides) or len({*sides}) < len(sides):
        raise UsageError(
            f"--smooth {spec[:60]}: write different sides of {MIN_SIDE} to {MAX_SIDE} pixels, "
            "such as scales:160,224,320"
        )
    return Smoothing(lambda inputs: _iter_scaled(inputs, sides), alters_image=True, sides=sides)


def parse_smoothing_options(spec: str, seed: int, fit: FitMode) -> Smoothing:
    """Read `--smooth`; ten crops are views of the image too. Raises UsageError."""
    smoothing = parse_smoothing(spec, seed)
    if smoothing.sides and fit == "tencrop":
        raise UsageError("--smooth scales and --fit tencrop cannot be combined; omit one")
    return replace(smoothing, has_crops=fit == "tencrop")


def compute_view_size(side: int, size: tuple[int, int]) -> tuple[int, int]:
    """The size (H, W) of a view whose short side is `side`, in the ratio of `size`."""
    scale = side / min(size)
    return round(scale * size[0]), round(scale * size[1])


def _iter_unchanged(inputs: Tensor) -> Iterator[View]:
    yield inputs, False


def _iter_augmented(inputs: Tensor) -> Iterator[View]:
    """Yield six views: as they are and mirrored, each at 0.9, 1 and 1.1 times the contrast."""
    for mirrored in (False, True):
        for contrast in (0.9, 1.0, 1.1):
            yield contrast * (inputs.flip(3) if mirrored else inputs), mirrored


def _iter_scaled(inputs: Tensor, sides: tuple[int, ...]) -> Iterator[View]:
    """Yield each image at several sizes, as it is and mirrored; the sides keep their ratio."""
    from torch.nn.functional import interpolate

    for side in sides:
        size = compute_view_size(side, (inputs.shape[2], inputs.shape[3]))
        view = interpolate(inputs, size, mode="bicubic", antialias=True)
        yield view, False
        yield view.flip(3), True


def _iter_noisy(inputs: Tensor, count: int, seed: int) -> Iterator[View]:
    """Yield SmoothGrad's views: with Gaussian noise of 0.15 times each image's range."""
    from camcli.core.rng import iter_noisy_copies

    for copy in iter_noisy_copies(inputs, count, 0.15, seed):
        yield copy, False


NO_SMOOTHING = parse_smoothing("none")
