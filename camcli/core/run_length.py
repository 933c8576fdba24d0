"""COCO's run-length encoding of masks."""

from __future__ import annotations

from collections.abc import Sequence
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


def decode_mask(counts: str, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode a mask of that size (H, W). Raises ValueError for runs that do not fill it."""
    return runs_to_mask(check_runs(decode_runs(counts), size), size)


def runs_to_mask(runs: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """A mask (H, W) from the lengths of its runs (off, on, off, ...) down the columns."""
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(size[::-1]).T


def check_runs(runs: list[int], size: tuple[int, int]) -> list[int]:
    """The same runs, if they fill a mask of that size (H, W). Raises ValueError."""
    if min(runs, default=0) < 0 or sum(runs) != size[0] * size[1]:
        raise ValueError("the runs do not fill the mask")
    return runs


def decode_runs(text: str) -> list[int]:
    """Decode COCO's compressed runs. Raises ValueError.

    Each letter, counted from '0', holds five bits, lowest bits first; bit 6 means that more follow.
    From the fourth run on, the text stores the difference from the run before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text.encode("ascii"):
        bits = letter - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("the compressed runs contain a character that COCO does not use")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs


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
