"""Methods that take a layer apart into what it is made of: several maps, and no single answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camcli.methods.registry import method

if TYPE_CHECKING:
    from torch import Tensor


# More than that are told apart neither by colour nor by eye.
OPTION_LIMITS = {"concepts": 10, "steps": 10_000}


@method(
    paper="https://arxiv.org/abs/1806.10206",
    returns="concepts",
    caption="concepts",
    option_limits=OPTION_LIMITS,
)
def dff(activations: Tensor, *, concepts: int = 5, steps: int = 200, seed: int = 0) -> Tensor:
    """DFF: the concepts that a layer is made of, each with the part of the image that shows it.

    relu(A) ~ W H, both >= 0, with pixels A (HW,C), W (HW,N), H (N,C), rows of H of length 1; the
    maps are the columns of W, the strongest first. (B,C,H,W) -> (B,N,H,W). The same for every
    class. Drawn each in a colour of its own, with its share of the whole.

    `concepts` is N, `steps` the number of multiplicative updates from a start drawn by the seed.
    Deviations: each image is factorised by itself; the paper factorises a set of images together.
    """
    from camcli.methods._decomposition import compute_factor_maps

    return compute_factor_maps(activations, concepts, steps, seed)
