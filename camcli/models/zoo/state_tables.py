"""Find the named tensors in the tables that training scripts save."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

StateDict = dict[str, Tensor]

MAX_SHARING_FACTOR = 4  # tied layers share numbers, at most this many times
MAX_TABLES = 1000  # that are searched in one file
# The keys of weights, the most usual first; tables under other keys count after these.
WRAPPER_KEYS = ("state_dict", "model", "state_dict_ema", "model_ema", "model_state_dict", "weights")


def find_tensors(content: Any) -> StateDict:
    """The named tensors of a file, also inside the tables in which training scripts wrap them.

    Tables under the usual keys come first. Otherwise it is the table with the most tensors,
    whatever its key: `{"net": weights, "acc": 0.9}`.
    """
    for _ in range(4):
        inner = next((content[k] for k in WRAPPER_KEYS if _has_table(content, k)), None)
        if inner is None:
            break
        content = inner
    found = max(map(_select_tensors, _iter_tables(content)), key=len, default={})
    stored = {v.untyped_storage().data_ptr(): v.untyped_storage().nbytes() for v in found.values()}
    if sum(v.numel() for v in found.values()) > MAX_SHARING_FACTOR * sum(stored.values()):
        return {}  # a hostile file: many huge views of a few numbers
    return {k: v.float() if v.is_floating_point() else v for k, v in found.items()}


def _iter_tables(content: Any) -> Iterator[Mapping[Any, Any]]:
    """A table and those inside it, outer ones first; each once, as a table may contain itself."""
    seen: set[int] = set()
    waiting = [content]
    while waiting and len(seen) < MAX_TABLES:
        table = waiting.pop(0)
        if isinstance(table, Mapping) and id(table) not in seen:
            seen.add(id(table))
            yield table
            waiting += table.values()


def _select_tensors(table: Mapping[Any, Any]) -> StateDict:
    return {k: v for k, v in table.items() if isinstance(k, str) and _is_complete_tensor(v)}


def _is_complete_tensor(value: Any) -> bool:
    """Whether the file contains every number of a tensor, so that a small file stays small."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_quantized or value.is_complex())
        and value.device.type == "cpu"
        and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    )


def _has_table(content: Any, key: str) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get(key), Mapping)
