"""COCO's run-length encoding of masks."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray


class RunLengths(TypedDict):
    """A mask as COCO's tools read it: `size` is (height, width), `counts` the encoded runs."""

    size: list[int]
    counts: str


def encode_mask(mask: NDArray[np.bool_]) -> RunLengths:
    """Encode a mask (H, W) in COCO's compressed form.

    The runs go down the columns, and the first one counts zeros.
    Source: https://github.com/cocodataset/cocoapi
    """
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = [0, *([0] if flat.size and flat[0] else []), *changes.tolist(), flat.size]
    runs = np.diff(edges).tolist()
    return {"size": [int(side) for side in mask.shape], "counts": _encode_runs(runs)}


def _encode_runs(runs: list[int]) -> str:
    """Each run, from the fourth on as its difference to the one two before."""
    steps = [run - (runs[n - 2] if n > 2 else 0) for n, run in enumerate(runs)]
    return "".join(map(_encode_number, steps))


def _encode_number(number: int) -> str:
    """Five bits a character, lowest first; bit 5 announces another one, bit 4 of the last signs."""
    text = ""
    while True:
        bits, number = number & 31, number >> 5
        is_last = number == (-1 if bits & 16 else 0)
        text += chr(48 + bits + (0 if is_last else 32))
        if is_last:
            return text
