"""The run.json of a run that was made in shards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from camcli.core.errors import to_one_line
from camcli.runs.counts import RunCounts
from camcli.runs.shard_folders import ShardFolder, read_entry

COMPARED_KEYS = ("device", "versions")  # parts on which the last bits of results depend


def create_merged_document(shards: Sequence[ShardFolder], counts: RunCounts) -> dict[str, Any]:
    """What all shards say alike, with their counts and seconds added up."""
    manifests = [each.manifest for each in shards]
    first = {name: value for name, value in manifests[0].items() if name != "shard"}
    return {
        **first,
        "images": read_entry(shards[0])["images"],
        "started": min(str(each.get("started", "")) for each in manifests),
        "finished": max(str(each.get("finished", "")) for each in manifests),
        "precision": next((each["precision"] for each in manifests if each.get("precision")), None),
        "notes": [*dict.fromkeys([*_iter_notes(manifests), *_iter_differences(manifests)])],
        "counts": counts.to_json(),
        "seconds": _sum_seconds(manifests),
        "shards": {"count": len(shards)},
    }


def _iter_notes(manifests: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for manifest in manifests:
        notes = manifest.get("notes")
        yield from (str(note) for note in notes) if isinstance(notes, list) else ()


def _iter_differences(manifests: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A sentence for each part that is not the same in all shards."""
    for key in COMPARED_KEYS:
        texts = dict.fromkeys(json.dumps(manifest.get(key)) for manifest in manifests)
        if len(texts) > 1:
            shown = " and ".join(to_one_line(text)[:200] for text in list(texts)[:3])
            yield f"the shards have different {key}: {shown}"


def _sum_seconds(manifests: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for manifest in manifests:
        seconds = manifest.get("seconds")
        for name, value in seconds.items() if isinstance(seconds, dict) else ():
            if isinstance(value, (int, float)):
                total[name] = round(total.get(name, 0.0) + value, 3)
    return total
