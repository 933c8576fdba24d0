"""Which images a shard has: whole batches, so that its results are those of the whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from camcli.core.errors import UsageError, to_one_line
from camcli.core.shards import Shard
from camcli.core.types import Failure, ImageSource

Source = ImageSource | Failure
# What the entries of run.json are called in messages.
SHARD_TEXTS = {
    "index": "its number",
    "count": "the number of shards",
    "batch_size": "--batch-size",
    "images": "the number of images",
    "list_sha256": "the list of images",
}


def take_shard(sources: Sequence[Source], batch_size: int, shard: Shard) -> list[Source]:
    """The inputs of the shard's batches, in their order.

    A batch is `batch_size` inputs in a row, readable or not. Only the last batch of a run can be
    shorter, and it is the last of its shard: so the pipeline makes the same batches of the rest.
    """
    starts = range(shard.index * batch_size, len(sources), shard.count * batch_size)
    return [source for start in starts for source in sources[start : start + batch_size]]


def count_shard_images(total: int, batch_size: int, shard: Shard) -> int:
    """The number of inputs that a shard of a run of `total` inputs has."""
    starts = range(shard.index * batch_size, total, shard.count * batch_size)
    return sum(min(batch_size, total - start) for start in starts)


def create_shard_entry(sources: Sequence[Source], batch_size: int, shard: Shard) -> dict[str, Any]:
    """What run.json says of a shard: its number, and the list of images that all shards share."""
    starts = range(0, len(sources), batch_size)
    batches = (sources[start : start + batch_size] for start in starts)
    digests = (compute_batch_digest([str(item.path) for item in batch]) for batch in batches)
    return {
        "index": shard.index,
        "count": shard.count,
        "batch_size": batch_size,
        "images": len(sources),
        "list_sha256": sha256(b"".join(digests)).hexdigest(),
    }


def compute_batch_digest(paths: Sequence[str]) -> bytes:
    """The SHA-256 of the paths of a batch."""
    return sha256("\0".join(paths).encode(errors="surrogatepass")).digest()


def list_shard_changes(was: object, now: object) -> list[str]:
    """What differs between two entries of run.json, as texts for the user."""
    if not isinstance(was, dict) or not isinstance(now, dict):
        return ["one of the two is no shard, which"]
    return [text for name, text in SHARD_TEXTS.items() if was.get(name) != now.get(name)]


def check_same_shard(output: Path, earlier: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Raise UsageError if the earlier run of a shard had other images or batches.

    Then its batches are others, and the shards of the run would no longer fit together.
    """
    was, now = earlier.get("shard"), manifest.get("shard")
    if was == now:
        return
    what = ", ".join(list_shard_changes(was, now))
    raise UsageError(
        f"cannot resume: the run in {to_one_line(output)} is another shard ({what} differs). "
        "Choose another --output, or replace the shard with --overwrite"
    )
