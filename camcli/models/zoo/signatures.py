"""The signature of an architecture: a hash of the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

Shapes = Mapping[str, tuple[int, ...]]

# Buffers that are computed from other values; some versions of a library save them, some do not.
DERIVED_BUFFERS = frozenset(
    {
        *("num_batches_tracked", "attn_mask", "relative_coords_table"),
        *("relative_position_index", "attention_bias_idxs"),
    }
)
# Auxiliary classifiers, which only training uses.
AUXILIARY_HEADS = frozenset({"AuxLogits", "aux1", "aux2"})
# Tensors whose shape depends on the image size, by their names in timm and torchvision.
POSITION_PATTERN = re.compile(
    r"(pos_emb\w*|pos_embedding|patch_pos|pixel_pos|position_embedding_table|rel_pos_[hw]"
    r"|relative_position_bias_table|attention_biases|(height|width)_rel)"
)


@dataclass(frozen=True, slots=True)
class Signature:
    """`trunk` is independent of the image size; `exact` is for one image size."""

    trunk: str
    exact: str


class SignatureRow(NamedTuple):
    """A tensor's line in both signatures. A tuple, because a state has thousands."""

    key: str
    trunk: str
    exact: str


def compute_signature(shapes: Shapes, dropped: Collection[str] = ()) -> Signature:
    """The signature of a state without the keys `dropped`, which belong to its classifier."""
    return rows_to_signature(create_signature_rows(shapes), dropped)


def create_signature_rows(shapes: Shapes) -> tuple[SignatureRow, ...]:
    """One row per tensor of the signature, sorted by key: the order in the file has no effect."""
    kept = sorted(key for key in shapes if not _is_transient(key))
    return tuple(_create_signature_row(key, shapes[key]) for key in kept)


def rows_to_signature(kept: Iterable[SignatureRow], dropped: Collection[str] = ()) -> Signature:
    """The signature of these rows without the keys `dropped`."""
    gone = frozenset(dropped)
    left = [row for row in kept if row.key not in gone]
    return Signature(hash_lines(row.trunk for row in left), hash_lines(row.exact for row in left))


def hash_lines(rows: Iterable[str]) -> str:
    """The first twelve hex digits of the lines' SHA-256."""
    return sha256("\n".join(rows).encode(errors="backslashreplace")).hexdigest()[:12]


def find_layer_keys(shapes: Iterable[str], layers: Iterable[str]) -> tuple[str, ...]:
    """The keys of these layers, in their given order."""
    heads = tuple(f"{layer}." for layer in layers)
    return tuple(key for key in shapes if key.startswith(heads))


def _is_transient(key: str) -> bool:
    """Whether a tensor depends on the library's version or on training, so signatures ignore it."""
    return key.rpartition(".")[2] in DERIVED_BUFFERS or key.partition(".")[0] in AUXILIARY_HEADS


def _is_position(key: str) -> bool:
    return any(POSITION_PATTERN.fullmatch(part) for part in key.split(".")[-2:])


def _create_signature_row(key: str, shape: tuple[int, ...]) -> SignatureRow:
    exact = f"{key} {'x'.join(map(str, shape))}"
    return SignatureRow(key, f"{key} *" if _is_position(key) else exact, exact)
