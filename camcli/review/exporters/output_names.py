"""File names for exported images that no name in results.jsonl can lead astray."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

from camcli.io.discovery import create_output_stems
from camcli.io.files import shorten_stem
from camcli.review.exporters.export_content import ExportImage


def create_export_stems(
    images: Sequence[ExportImage], reserved_folders: Collection[str] = ()
) -> list[str]:
    """A distinct stem for each image that mirrors its name: "birds/a.jpg" becomes "birds/a".

    Characters that cannot be printed become `_`. A folder with a reserved name gets `_` at its end.
    """
    names = [_clean_path(image.name, reserved_folders) for image in images]
    return [shorten_stem(stem) for stem in create_output_stems(names)]


def _clean_path(name: str, reserved_folders: Collection[str]) -> str:
    clean = "".join(c if c.isprintable() and c != "\\" else "_" for c in name)
    path = PurePosixPath(clean)
    if path.name in ("", ".."):
        return "image"
    folders = [f"{part}_" if part in reserved_folders else part for part in path.parts[:-1]]
    return str(PurePosixPath(*folders, path.name))
