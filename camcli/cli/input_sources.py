"""Find the images that the inputs of a command name, and say which pictures are left out."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from camcli.cli.console import print_notice
from camcli.io.discovery import (
    SourceOrFailure,
    find_image_sources,
    format_unread_notice,
    parse_path_list,
)


def read_listed_paths(inputs: Sequence[str]) -> list[str]:
    """The list on standard input, if `-` is one of the inputs."""
    return parse_path_list(sys.stdin.read()) if "-" in inputs else []


def find_input_sources(
    inputs: Sequence[str], skip_folder: Path | None, listed: Sequence[str] | None = None
) -> list[SourceOrFailure]:
    """Every image of the inputs, and of the list on standard input if `-` is one of them.

    `listed` is that list if it has been read already. Prints how many pictures of other formats
    the folders hold. Raises UsageError without an image.
    """
    listed = read_listed_paths(inputs) if listed is None else listed
    unread = Counter[str]()
    sources = find_image_sources(inputs, listed, skip_folder, unread.update)
    print_notice(format_unread_notice(unread))
    return sources
