"""`--shard I/N` and `--shard auto`: which part of a run a process does."""

from __future__ import annotations

import pytest

from camcli.core.errors import UsageError
from camcli.core.shards import Shard, find_local_number, parse_folder_name, parse_shard

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4"}
ARRAY = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "5", "SLURM_ARRAY_TASK_COUNT": "3"}
TASKS = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8"}
MPI = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}

FOUND: dict[str, tuple[str, dict[str, str], Shard]] = {
    "by hand": ("3/16", TORCHRUN, Shard(3, 16)),
    "one part": ("0/1", {}, Shard(0, 1)),
    "torchrun first": ("auto", {**TASKS, **ARRAY, **MPI, **TORCHRUN}, Shard(1, 4)),
    "an array before tasks": ("auto", {**TASKS, **ARRAY, "SLURM_NTASKS": "1"}, Shard(2, 3)),
    "an array alone": ("auto", ARRAY, Shard(2, 3)),
    "an array in steps": ("auto", {**ARRAY, "SLURM_ARRAY_TASK_STEP": "2"}, Shard(1, 3)),
    "an array from 0": (
        "auto",
        {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "2"},
        Shard(1, 2),
    ),
    "tasks": ("auto", {**TASKS, **MPI}, Shard(3, 8)),
    "Open MPI": ("auto", {**MPI, "JOB_COMPLETION_INDEX": "1"}, Shard(0, 2)),
    "a rank without a size": ("auto", {"RANK": "1", **MPI}, Shard(0, 2)),
    "Kubernetes": ("auto/4", {"JOB_COMPLETION_INDEX": "3"}, Shard(3, 4)),
    "AWS Batch": ("auto/4", {"AWS_BATCH_JOB_ARRAY_INDEX": "2"}, Shard(2, 4)),
    "the same number twice": ("auto/4", TORCHRUN, Shard(1, 4)),
}
REFUSED: dict[str, tuple[str, dict[str, str], str]] = {
    "nothing": ("auto", {}, "RANK with WORLD_SIZE.*SLURM_ARRAY_TASK_ID.*JOB_COMPLETION_INDEX"),
    "no number": ("auto", {"JOB_COMPLETION_INDEX": "3"}, "write auto/N"),
    "another number": ("auto/8", TORCHRUN, "WORLD_SIZE is 4; write auto"),
    "no digits": ("auto", {**TORCHRUN, "RANK": "one\n"}, r"RANK is 'one\\n', not a number"),
    "too high": ("auto", {**TORCHRUN, "RANK": "4"}, "numbers are 0 to 3"),
    "a list of tasks": ("auto", {**ARRAY, "SLURM_ARRAY_TASK_ID": "90"}, "numbers are 0 to 2"),
    "before the first task": ("auto", {**ARRAY, "SLURM_ARRAY_TASK_ID": "2"}, "numbers are 0 to 2"),
    "between two steps": ("auto", {**ARRAY, "SLURM_ARRAY_TASK_STEP": "4"}, "numbers are 0 to 2"),
    "an array of several tasks": ("auto", {**ARRAY, **TASKS}, "several tasks"),
    "from 1": ("4/4", {}, "numbers are 0 to 3"),
    "none": ("0/0", {}, "1 to 100000 shards"),
    "very many": ("0/100001", {}, "1 to 100000 shards"),
    "negative": ("-1/4", {}, "write I/N"),
    "other digits": ("\u0661/\u0664", {}, "write I/N"),
    "a word": ("half\x1b", {}, r"half\\x1b: write I/N"),
    "auto of a word": ("auto/x", {}, "write I/N"),
}


@pytest.mark.parametrize("case", FOUND)
def test_the_part_is_found(case: str) -> None:
    text, variables, shard = FOUND[case]
    assert parse_shard(text, variables) == shard


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_part_is_refused_in_one_line(case: str) -> None:
    text, variables, message = REFUSED[case]
    with pytest.raises(UsageError, match=message) as caught:
        parse_shard(text, variables)
    assert "\n" not in str(caught.value)


def test_a_folder_names_its_shard() -> None:
    for shard in (Shard(0, 1), Shard(3, 16), Shard(12345, 99999)):
        assert parse_folder_name(shard.folder_name) == shard
    names = ("0004-of-0004", "3-of-16", "0003-of-00016", "0003-of-0016 ", "\u0660001-of-0016", "in")
    assert [parse_folder_name(name) for name in names] == [None] * len(names)


def test_the_number_on_the_machine_is_found() -> None:
    assert find_local_number({"LOCAL_RANK": "1", "SLURM_LOCALID": "2"}) == 1
    assert find_local_number({"SLURM_LOCALID": "2"}) == 2
    assert find_local_number({"LOCAL_RANK": "x"}) is None
    assert find_local_number({"RANK": "3"}) is None
