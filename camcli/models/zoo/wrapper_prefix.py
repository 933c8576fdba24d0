"""Remove the prefix that a training script's own module puts before the keys of a network."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from camcli.models.zoo.state_tables import StateDict


def strip_wrapper(state: StateDict, network: nn.Module) -> tuple[StateDict, str]:
    """The state without the prefix under which the most keys of the network are, and a note.

    For example Lightning saves `net.*` for a network in `self.net`. If all keys of the network
    are under the prefix, everything else is left out, and the note names it.
    """
    wanted = [key for key in network.state_dict() if not key.endswith("num_batches_tracked")]
    counts = {p: _count_keys(state, p, wanted) for p in ("", *_find_prefixes(state, wanted))}
    prefix = max(counts, key=lambda p: counts[p])
    inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    beside = {k: v for k, v in state.items() if not k.startswith(prefix)}
    if counts[prefix] < len(wanted):
        return beside | inner, ""
    parts = ", ".join(dict.fromkeys(key.partition(".")[0] for key in beside))
    return inner, f"parts outside {prefix} are ignored: {parts}" if parts else ""


def _find_prefixes(state: StateDict, wanted: Collection[str]) -> list[str]:
    """What stands before some of the wanted keys in the state."""
    sampled = list(wanted)[:2]
    ends = [(key, end) for key in state for end in sampled if key.endswith(f".{end}")]
    return list(dict.fromkeys(key.removesuffix(end) for key, end in ends))


def _count_keys(state: StateDict, prefix: str, wanted: Collection[str]) -> int:
    return sum(f"{prefix}{key}" in state for key in wanted)
