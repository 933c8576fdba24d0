"""What camcli says of a run that was made in shards."""

from __future__ import annotations

from pathlib import Path

from camcli.cli.console import print_error, print_info
from camcli.cli.run_texts import choose_first_picture, list_incomplete_texts, print_results_folder
from camcli.core.errors import to_one_line
from camcli.core.shards import SHARDS_FOLDER
from camcli.runs.merge_shards import MergedRun


def print_merged_run(output: Path, merged: MergedRun) -> None:
    """Print how many images came together, and where the results are."""
    count, counts = merged.document["shards"]["count"], merged.counts
    parts = [f"{merged.document['images']} images of {count} shard{'s' * (count != 1)}"]
    print_info(", ".join([*parts, *(list_incomplete_texts(counts) if counts else [])]))
    if merged.leftover_count:
        where = to_one_line(output / SHARDS_FOLDER)
        print_error(f"{merged.leftover_count} other files stay in {where}")
    print_results_folder(output, choose_first_picture(counts.first_files) if counts else None)
