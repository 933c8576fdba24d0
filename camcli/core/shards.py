"""One part of a run that several processes share: `--shard 3/16`, or what a scheduler says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from camcli.core.errors import UsageError, to_one_line

SHARDS_FOLDER = "shards"
MAX_SHARDS = 100_000
# The variables of `--shard auto`: the number of the process, and of all processes.
ARRAY_INDEX, ARRAY_COUNT = "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"
COUNTED_VARIABLES = (
    ("RANK", "WORLD_SIZE"),
    (ARRAY_INDEX, ARRAY_COUNT),
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
)
INDEX_VARIABLES = ("JOB_COMPLETION_INDEX", "AWS_BATCH_JOB_ARRAY_INDEX")
LOCAL_VARIABLES = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK")


@dataclass(frozen=True, slots=True)
class Shard:
    """Number `index` of `count` parts, from 0: it has the batches b with b % count == index.

    Whole batches, because some kernels round differently in a batch of another size.
    """

    index: int
    count: int

    @property
    def folder_name(self) -> str:
        """The name of its folder: `0003-of-0016`."""
        return f"{self.index:04}-of-{self.count:04}"

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_folder_name(name: str) -> Shard | None:
    """The shard that a folder belongs to; None for the name of any other folder."""
    found = re.fullmatch(r"([0-9]{4,6})-of-([0-9]{4,6})", name)
    shard = Shard(int(found[1]), int(found[2])) if found else None
    is_own = shard is not None and shard.index < shard.count and shard.folder_name == name
    return shard if is_own else None


def parse_shard(text: str, variables: Mapping[str, str]) -> Shard:
    """Read `I/N`, `auto`, or `auto/N`; `variables` is the environment. Raises UsageError."""
    if found := re.fullmatch(r"auto(?:/([0-9]{1,6}))?", text):
        return find_scheduled_shard(variables, int(found[1]) if found[1] else None)
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not found:
        raise UsageError(
            f"--shard {to_one_line(text)}: write I/N, such as 0/4 to 3/4; or auto, or auto/N"
        )
    return _create_shard(int(found[1]), int(found[2]), f"--shard {text}")


def _create_shard(index: int, count: int, source: str) -> Shard:
    if not 1 <= count <= MAX_SHARDS:
        raise UsageError(f"{source}: there can be 1 to {MAX_SHARDS} shards, not {count}")
    if not 0 <= index < count:
        raise UsageError(f"{source}: of {count} shards, the numbers are 0 to {count - 1}")
    return Shard(index, count)


def find_scheduled_shard(variables: Mapping[str, str], count: int | None) -> Shard:
    """The shard that torchrun, SLURM, Open MPI, Kubernetes or AWS Batch gives this process.

    `count` is the number of shards, which the last two do not tell. Raises UsageError.
    """
    for index_name, count_name in COUNTED_VARIABLES:
        if index_name in variables and count_name in variables:
            told = _read_number(variables, count_name)
            if count not in (None, told):
                raise UsageError(f"--shard auto/{count}: {count_name} is {told}; write auto")
            index = _read_index(variables, index_name)
            return _create_shard(index, told, f"--shard auto: {index_name} gives {index}")
    for name in INDEX_VARIABLES:
        if name in variables:
            if count is None:
                raise UsageError(
                    f"--shard auto: {name} does not tell the number of shards; write auto/N"
                )
            index = _read_number(variables, name)
            return _create_shard(index, count, f"--shard auto/{count}: {name} gives {index}")
    pairs = ", ".join(f"{index} with {total}" for index, total in COUNTED_VARIABLES)
    raise UsageError(
        f"--shard auto: found none of the variables {pairs}, {', '.join(INDEX_VARIABLES)}; "
        "write --shard I/N"
    )


def _read_index(variables: Mapping[str, str], name: str) -> int:
    """The number of a process; in a SLURM array counted from its first task, in its steps."""
    if name != ARRAY_INDEX:
        return _read_number(variables, name)
    if variables.get("SLURM_NTASKS", "1") != "1":
        raise UsageError(
            "--shard auto: this is an array whose jobs have several tasks, so "
            f"{ARRAY_INDEX} is not enough; write --shard I/N"
        )
    first = _read_number(variables, "SLURM_ARRAY_TASK_MIN", "0")
    step = max(1, _read_number(variables, "SLURM_ARRAY_TASK_STEP", "1"))
    index, rest = divmod(_read_number(variables, name) - first, step)
    return -1 if rest else index


def _read_number(variables: Mapping[str, str], name: str, default: str = "") -> int:
    text = variables.get(name, default)
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UsageError(f"--shard auto: {name} is '{to_one_line(text)}', not a number")
    return int(text)


def find_local_number(variables: Mapping[str, str]) -> int | None:
    """The number of this process among those of its machine, if a scheduler tells it."""
    texts = (variables[name] for name in LOCAL_VARIABLES if name in variables)
    return next((int(text) for text in texts if re.fullmatch(r"[0-9]{1,6}", text)), None)
