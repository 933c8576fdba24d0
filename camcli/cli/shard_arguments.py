"""The options that divide a run among processes, checked before torch is imported."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from camcli.cli.declarations import OUTPUT, SPEED
from camcli.cli.export_lines import JSON_FORMAT
from camcli.cli.options import check_no_existing_run
from camcli.core.errors import UsageError, to_one_line
from camcli.core.shards import SHARDS_FOLDER, Shard, find_local_number, parse_shard
from camcli.io.results import RESULTS_FILE
from camcli.io.writers import SHEET
from camcli.review.diff.diff_limits import Allowance, parse_allowance
from camcli.runs.merge_shards import is_merge_under_way
from camcli.runs.shard_folders import check_shard_count

if TYPE_CHECKING:
    from camcli.cli.arguments import ExplainOutputArguments, ExplainSpeedArguments

MAX_DEVICES = 256


@dataclass(frozen=True, slots=True)
class ShardArguments:
    """How processes share a run, and how many images may fail, as typed."""

    shard: Annotated[
        str | None,
        Option(
            metavar="I/N",
            help="Do only part I of N, from 0, into a folder of its own below --output; auto asks"
            " torchrun, SLURM or MPI. Then join all with camcli merge.",
            show_default="the whole run",
            rich_help_panel=SPEED,
        ),
    ] = None
    devices: Annotated[
        str | None,
        Option(
            metavar="LIST",
            help="Share the run among processes, one for each device of this list: numbers of GPUs"
            " such as 0,1,2,3, or cpu,cpu.",
            show_default="one process",
            rich_help_panel=SPEED,
        ),
    ] = None
    max_failures: Annotated[
        str,
        Option(
            metavar="N|P%",
            help="End with exit status 0 while at most so many images, or this share of them,"
            " fail or get no map.",
            rich_help_panel=OUTPUT,
        ),
    ] = "0"


@dataclass(frozen=True, slots=True)
class Sharing:
    """The part of the run that this process does, or the devices that share it."""

    shard: Shard | None
    devices: tuple[str, ...]
    allowed: Allowance

    def choose_status(self, incomplete_count: int, image_count: int) -> int:
        """The exit status: 1 if more images failed than the user allows."""
        return int(incomplete_count > self.allowed.count_images(image_count))


def parse_sharing(
    given: ShardArguments,
    output: ExplainOutputArguments,
    speed: ExplainSpeedArguments,
    kinds: Sequence[str],
) -> Sharing:
    """Read the options. Raises UsageError for what a part of a run cannot do."""
    allowed = parse_allowance(given.max_failures, "--max-failures")
    if given.shard is not None and given.devices is not None:
        raise UsageError("--shard and --devices cannot be combined")
    if given.shard is not None:
        shard = parse_shard(given.shard, os.environ)
        _check_shard_output(output)
        _check_shared_options("--shard", output, speed, kinds)
        return Sharing(shard, (), allowed)
    if given.devices is not None:
        devices = parse_devices(given.devices)
        _check_shared_options("--devices", output, speed, kinds)
        _check_device_options(output, speed)
        return Sharing(None, devices, allowed)
    return Sharing(None, (), allowed)


def parse_devices(text: str) -> tuple[str, ...]:
    """Read numbers of GPUs, or `cpu` several times. Raises UsageError."""
    names = tuple(part.strip() for part in text.split(","))
    if not all(re.fullmatch(r"cpu|[0-9]{1,4}", name) for name in names):
        raise UsageError(
            f"--devices {to_one_line(text)}: write numbers of GPUs, such as 0,1; or cpu,cpu"
        )
    if len(names) > MAX_DEVICES:
        raise UsageError(f"--devices: at most {MAX_DEVICES} devices")
    return names


def _check_shard_output(output: ExplainOutputArguments) -> None:
    if output.output is None:
        raise UsageError("--shard needs --output DIR, the folder that all shards of a run share")
    if output.report or output.box_format != JSON_FORMAT:
        option, command = ("--report", "report") if output.report else ("--box-format", "export")
        raise UsageError(f"{option} takes a whole run; use camcli {command} after camcli merge")


def _check_shared_options(
    option: str,
    output: ExplainOutputArguments,
    speed: ExplainSpeedArguments,
    kinds: Sequence[str],
) -> None:
    """Refuse what depends on the other parts of the run: results would not be those of the run."""
    if speed.precision == "auto":
        raise UsageError(f"{option}: --precision auto measures each part alone; name fp32 or bf16")
    if output.scale == "run":
        raise UsageError(f"{option}: --scale run needs all maps; give the range as LOW..HIGH")
    if SHEET in kinds:
        raise UsageError(f"{option}: --save sheet needs the first images; use camcli figure")


def _check_device_options(output: ExplainOutputArguments, speed: ExplainSpeedArguments) -> None:
    if speed.device != "auto":
        raise UsageError("--device and --devices cannot be combined")
    if output.show:
        raise UsageError("--show and --devices cannot be combined")


def choose_run_folder(
    output: Path | None, sharing: Sharing, *, overwrite: bool, resume: bool
) -> Path | None:
    """The folder of this process: of a shard, its own one. Raises UsageError if it is taken."""
    continues, remedy = overwrite or resume, "--resume or --overwrite"
    count = sharing.shard.count if sharing.shard else len(sharing.devices)
    if not count or output is None:
        check_no_existing_run(output, continues, remedy=remedy)
        return output
    if is_merge_under_way(output):
        where = to_one_line(output)
        raise UsageError(f"{where}: a merge was cut off; to continue: camcli merge {where}")
    if not overwrite and os.path.lexists(output / RESULTS_FILE):
        where = to_one_line(output)
        raise UsageError(
            f"{where} already holds a whole run: continue it in one process, without --shard and"
            " --devices; or choose another --output, or add --overwrite"
        )
    check_shard_count(output, count)
    shards = [sharing.shard] if sharing.shard else [Shard(n, count) for n in range(count)]
    folders = [output / SHARDS_FOLDER / shard.folder_name for shard in shards]
    for folder in folders:
        check_no_existing_run(folder, continues, remedy=remedy)
    return folders[0] if sharing.shard else output


def choose_local_device(device: str, sharing: Sharing) -> str:
    """`--device`; for a shard, `auto` is the GPU of this process among those of its machine."""
    number = find_local_number(os.environ)
    if sharing.shard is None or device != "auto" or number is None:
        return device
    import torch

    count = torch.cuda.device_count()
    return f"cuda:{number % count}" if count > 1 else device
