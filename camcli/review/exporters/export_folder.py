"""Write an export into its folder, and replace nothing that another program or person made."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from camcli.core.errors import OutputError, UsageError, to_one_line
from camcli.io.discovery import IMAGE_SUFFIXES
from camcli.io.files import is_below_folder, write_file
from camcli.review.exporters.export_content import ExportFiles, encode_json
from camcli.review.result_lines import is_inside_folder

LIST_FILE = "export.json"  # what was exported, and the names of its files


def write_export(
    folder: Path, files: ExportFiles, about: Mapping[str, Any], *, overwrite: bool
) -> None:
    """Write all files, and `export.json` with `about` and their names.

    With `overwrite` the files of an earlier export are replaced, and those that the new one lacks
    are deleted. An image that lies in its place already stays. Raises UsageError if a file exists
    that no export made, and OutputError if camcli cannot write.
    """
    earlier = _load_earlier_names(folder)
    if earlier is not None and not overwrite:
        raise UsageError(
            f"{to_one_line(folder)} holds an export already; "
            "add --overwrite to replace it, or choose another --output"
        )
    old = earlier or frozenset()
    links = {
        name: source
        for name, source in files.links.items()
        if not _is_in_place(folder / name, source)
    }
    names = [*files.files, *links]
    _check_free(folder, [*names, *([LIST_FILE] if earlier is None else [])], old)
    _check_inside(folder, names)
    # First the list of all names, so that an interrupted export can be replaced, too.
    _write_list(folder, about, {*old, *names})
    for name, content in files.files.items():
        write_file(folder / name, content)
    for name, source in links.items():
        _link_file(Path(source), folder / name)
    _delete_files(folder, old - {*names})
    _write_list(folder, about, names)


def _load_earlier_names(folder: Path) -> frozenset[str] | None:
    """The names in an earlier export.json; None if the folder holds no export."""
    try:
        document = json.loads((folder / LIST_FILE).read_bytes())
        names = document["files"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(names, list):
        return None
    return frozenset(n for n in names if isinstance(n, str) and is_inside_folder(n))


def _write_list(folder: Path, about: Mapping[str, Any], names: Iterable[str]) -> None:
    write_file(folder / LIST_FILE, encode_json({**about, "files": sorted(names)}))


def _check_free(folder: Path, names: Iterable[str], old: Collection[str]) -> None:
    """Raise UsageError for the first file that exists and is not of an earlier export."""
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise UsageError(f"{to_one_line(folder)} is not a folder; choose another --output")
    for name in names:
        if name not in old and os.path.lexists(folder / name):
            raise UsageError(
                f"{to_one_line(folder / name)} exists, and no export made it; "
                "choose another --output"
            )


def _check_inside(folder: Path, names: Iterable[str]) -> None:
    """Raise UsageError if a link leads a file out of the folder."""
    for parent in {str(PurePosixPath(name).parent) for name in names}:
        if not is_below_folder(folder / parent, folder):
            raise UsageError(f"{to_one_line(folder / parent)} leads out of the output folder")


def _is_in_place(path: Path, source: str) -> bool:
    """Whether the image itself lies where a link to it would be."""
    try:
        return not path.is_symlink() and path.samefile(source)
    except (OSError, ValueError):
        return False


def _link_file(source: Path, path: Path) -> None:
    """Make a symbolic link, or a hard link, or a copy, whichever the system can make."""
    source = source.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        try:
            path.symlink_to(source)
        except (OSError, NotImplementedError):
            _copy_file(source, path)
    except OSError as error:
        raise OutputError(f"cannot write {to_one_line(path)}: {error.strerror}") from None


def _copy_file(source: Path, path: Path) -> None:
    try:
        path.hardlink_to(source)
    except (OSError, NotImplementedError):
        shutil.copyfile(source, path)


def _delete_files(folder: Path, names: Iterable[str]) -> None:
    """Delete files of an earlier export, and folders that become empty.

    Images stay unless they are links: someone may have put the only copy in the place of a link.
    """
    for name in names:
        path = folder / name
        is_image = path.suffix.lower() in IMAGE_SUFFIXES and not path.is_symlink()
        if not is_image and is_below_folder(path.parent, folder):
            with suppress(OSError, ValueError):
                path.unlink()
                path.parent.rmdir()
