"""Addresses of files for a page in a folder: relative, and safe whatever the names hold."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from camcli.core.errors import UsageError
from camcli.review.pages.page_thumbnails import create_thumbnails

MAX_EMBEDDED_IMAGES = 5000  # about 50 MB of page
# What browsers draw. Photographs of other kinds get a thumbnail inside the page.
BROWSER_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif", ".apng")


def link_to_file(path: str | Path, folder: Path) -> str:
    """The address of a file, seen from a folder.

    The start is always "./", "../" or "file:", so that no name reads as another scheme.
    """
    target = os.path.abspath(path)  # noqa: PTH100 - a link stays the name that the user knows
    try:
        relative = os.path.relpath(target, folder)
    except ValueError:  # another drive
        return Path(target).as_uri()
    address = quote(os.fsencode(relative.replace(os.sep, "/")))
    return address if address.startswith("../") else f"./{address}"


def is_drawn_by_browsers(path: str) -> bool:
    """Whether a browser draws a file with this suffix."""
    return path.lower().endswith(BROWSER_SUFFIXES)


@dataclass(frozen=True, slots=True)
class PhotoLinks:
    """The photographs of a page: addresses, or small pictures inside the page by path."""

    page_folder: Path
    thumbnails: Mapping[str, str]
    missing: set[str] = field(default_factory=set)

    @classmethod
    def from_paths(cls, paths: Sequence[str], page_folder: Path, *, embed: bool) -> PhotoLinks:
        """Prepare the photographs; with `embed`, all of them become small pictures.

        Raises UsageError for more than MAX_EMBEDDED_IMAGES.
        """
        distinct = list(dict.fromkeys(paths))
        if embed and len(distinct) > MAX_EMBEDDED_IMAGES:
            raise UsageError(
                f"--embed takes at most {MAX_EMBEDDED_IMAGES} images, and there are "
                f"{len(distinct)}; leave --embed out, and keep the page beside the images"
            )
        chosen = distinct if embed else [p for p in distinct if not is_drawn_by_browsers(p)]
        return cls(page_folder, create_thumbnails(filter(os.path.isfile, chosen)))

    def link(self, path: str) -> str:
        """The address of a photograph; empty if it is inside the page, or gone."""
        if path in self.thumbnails:
            return ""
        if not os.path.isfile(path):
            self.missing.add(path)
            return ""
        return link_to_file(path, self.page_folder)

    def describe_missing(self) -> Iterator[str]:
        """A line about the photographs that are gone, if any are."""
        if self.missing:
            yield (
                f"photographs that are not where the run found them: {len(self.missing)}, such as "
                f"{min(self.missing)}; make the report in the folder in which the run was made"
            )
