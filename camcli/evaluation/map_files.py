"""Find the file of an image's map in a folder of maps."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from camcli.evaluation.datasets.annotations import Problem

MAX_TAGS_NAMED = 5


@dataclass(frozen=True, slots=True)
class MapFolder:
    """A folder of NAME.npy, NAME.npz and NAME.METHOD.npz files.

    NAME is the name of an image with or without its suffix, or the end of its path if no other
    image ends in it. `image_counts` has the number of images of each name. `method_slug` chooses
    a method where an image has several.
    """

    folder: Path
    image_counts: Mapping[str, int]
    method_slug: str | None = None
    _listings: dict[Path, list[str]] = field(default_factory=dict)

    @classmethod
    def from_images(
        cls, folder: Path, images: Iterable[str], method_slug: str | None = None
    ) -> MapFolder:
        """Prepare the search for the maps of these images."""
        counts = Counter(
            name
            for image in images
            for ending in _list_path_endings(image)
            for name in dict.fromkeys((ending, _remove_suffix(ending)))
        )
        return cls(folder, counts, method_slug)

    def find(self, image: str) -> Path | Problem:
        """The map file of an image, or why there is none."""
        names = list(self._iter_names(image))
        for path in self._iter_plain_files(names):
            if os.path.isfile(path):
                return path
        for name in names:
            if tags := self._find_tags(name):
                return self._choose_file(image, name, tags)
        kinds = f"map of {self.method_slug}" if self.method_slug else f"{image}.npy or .npz"
        return Problem("map is missing", image, f"no {kinds} in {self.folder}")

    def _iter_names(self, image: str) -> Iterator[str]:
        for ending in _list_path_endings(image):
            if self.image_counts[ending] == 1 or ending == image:
                yield ending
                yield _remove_suffix(ending)

    def _iter_plain_files(self, names: Iterable[str]) -> Iterator[Path]:
        if self.method_slug is None:
            yield from (self.folder / f"{n}{suffix}" for n in names for suffix in (".npy", ".npz"))

    def _choose_file(self, image: str, name: str, tags: list[str]) -> Path | Problem:
        if len(tags) == 1:
            return self.folder / f"{name}.{tags[0]}.npz"
        shown = ", ".join(tags[:MAX_TAGS_NAMED])
        remedy = "keep one layer" if self.method_slug else "choose one with --method NAME"
        return Problem("several maps", image, f"{shown} in {self.folder}; {remedy}")

    def _find_tags(self, name: str) -> list[str]:
        """What stands between NAME and .npz: the method, and the layer where it has several."""
        base = f"{Path(name).name}."
        place = (self.folder / name).parent
        files = self._list_files(place)
        own = takewhile(lambda f: f.startswith(base), files[bisect_left(files, base) :])
        tags = (file[len(base) : -len(".npz")] for file in own)
        return [tag for tag in tags if self._is_wanted(tag) and not self._is_of_other(name, tag)]

    def _is_wanted(self, tag: str) -> bool:
        slug = self.method_slug
        return bool(tag) if slug is None else tag == slug or tag.startswith(f"{slug}.")

    def _is_of_other(self, name: str, tag: str) -> bool:
        """Whether a file belongs to an image with a longer name: `a.b.jpg` beside `a.jpg`."""
        parts = tag.split(".")
        longer = (".".join([name, *parts[: n + 1]]) for n in range(len(parts)))
        return any(other in self.image_counts for other in longer)

    def _list_files(self, place: Path) -> list[str]:
        if place not in self._listings:
            names = (file.name for file in place.glob("*.npz"))
            self._listings[place] = sorted(names)
        return self._listings[place]


def _remove_suffix(name: str) -> str:
    return str(Path(name).with_suffix(""))


def _list_path_endings(image: str) -> list[str]:
    """The ends of a path: `a/b/c.jpg`, `b/c.jpg`, `c.jpg`."""
    parts = Path(image).parts
    return [str(Path(*parts[i:])) for i in range(len(parts))]
