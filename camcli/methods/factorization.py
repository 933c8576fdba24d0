"""Methods that split a layer into components; they return several maps instead of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camcli.methods.registry import method

if TYPE_CHECKING:
    from torch import Tensor


# With more concepts the colours repeat.
OPTION_LIMITS = {"concepts": 10, "steps": 10_000}


@method(
    paper="https://arxiv.org/abs/1806.10206",
    returns="concepts",
    caption="concepts",
    option_limits=OPTION_LIMITS,
)
def dff(activations: Tensor, *, concepts: int = 5, steps: int = 200, seed: int = 0) -> Tensor:
    """DFF: the concepts in a layer, each with a map of where it occurs.

    relu(A) ~ W H, both >= 0, with pixels A (HW,C), W (HW,N), H (N,C), and rows of H of length 1.
    The maps are the columns of W, strongest first. (B,C,H,W) -> (B,N,H,W). They are the same for
    every class. Pictures show each map in its own colour, with its share of the sum.

    `concepts` is N. `steps` is the number of multiplicative updates, from a random start (`seed`).
    Deviations: camcli factorises each image alone; the paper factorises a set of images together.
    """
    from camcli.methods._decomposition import compute_factor_maps

    return compute_factor_maps(activations, concepts, steps, seed)
