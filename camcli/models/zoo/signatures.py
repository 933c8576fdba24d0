"""What marks an architecture: a hash of the names and shapes of its tensors. Pure.

Knows nothing of tensors, files or networks, nor of which architecture has which signature.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

Shapes = Mapping[str, tuple[int, ...]]

# Buffers that follow from the rest, and that one version of a library saves and another does not.
DERIVED_BUFFERS = frozenset(
    {
        *("num_batches_tracked", "attn_mask", "relative_coords_table"),
        *("relative_position_index", "attention_bias_idxs"),
    }
)
# Outputs halfway that serve training only; libraries drop them afterwards.
AUXILIARY_HEADS = frozenset({"AuxLogits", "aux1", "aux2"})
# Their shape follows the image's size: what they are called everywhere in timm and torchvision.
POSITION_PATTERN = re.compile(
    r"(pos_emb\w*|pos_embedding|patch_pos|pixel_pos|position_embedding_table|rel_pos_[hw]"
    r"|relative_position_bias_table|attention_biases|(height|width)_rel)"
)


@dataclass(frozen=True, slots=True)
class Signature:
    """`trunk` holds whatever the image size and the classes; `exact` for one image size."""

    trunk: str
    exact: str


class SignatureRow(NamedTuple):
    """A tensor as both signatures see it. A light tuple: a state has thousands."""

    key: str
    trunk: str
    exact: str


def compute_signature(shapes: Shapes, dropped: Collection[str] = ()) -> Signature:
    """The marks of a state without the keys `dropped`, which are its classifier's."""
    return rows_to_signature(create_signature_rows(shapes), dropped)


def create_signature_rows(shapes: Shapes) -> tuple[SignatureRow, ...]:
    """The tensors that mark a state, in an order that no file has a say in."""
    kept = sorted(key for key in shapes if not _is_transient(key))
    return tuple(_create_signature_row(key, shapes[key]) for key in kept)


def rows_to_signature(kept: Iterable[SignatureRow], dropped: Collection[str] = ()) -> Signature:
    """A signature of rows, some of which do not count."""
    gone = frozenset(dropped)
    left = [row for row in kept if row.key not in gone]
    return Signature(hash_lines(row.trunk for row in left), hash_lines(row.exact for row in left))


def hash_lines(rows: Iterable[str]) -> str:
    """Twelve hex digits that stand for these lines."""
    return sha256("\n".join(rows).encode(errors="backslashreplace")).hexdigest()[:12]


def find_layer_keys(shapes: Iterable[str], layers: Iterable[str]) -> tuple[str, ...]:
    """The keys that belong to these layers, in the file's order."""
    heads = tuple(f"{layer}." for layer in layers)
    return tuple(key for key in shapes if key.startswith(heads))


def _is_transient(key: str) -> bool:
    """Whether a tensor comes and goes with versions and training, and so marks nothing."""
    return key.rpartition(".")[2] in DERIVED_BUFFERS or key.partition(".")[0] in AUXILIARY_HEADS


def _is_position(key: str) -> bool:
    return any(POSITION_PATTERN.fullmatch(part) for part in key.split(".")[-2:])


def _create_signature_row(key: str, shape: tuple[int, ...]) -> SignatureRow:
    exact = f"{key} {'x'.join(map(str, shape))}"
    return SignatureRow(key, f"{key} *" if _is_position(key) else exact, exact)
