"""PASCAL VOC's XML, which ILSVRC's boxes have too: one file an image."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from camcli.core.errors import UsageError
from camcli.evaluation.datasets.annotations import Corners, Found, Problem, Truth
from camcli.evaluation.datasets.tables import lines
from camcli.io.images import SUFFIXES

LARGEST = 2**20  # bytes; an annotation has a few thousand


def xml(annotations: Path, images: Path, split: str | None) -> Iterator[Found]:
    """Every XML file below `annotations`, with the image of its name below `images`.

    Of several images of one name the one in the folder that is called alike is meant. A class of an
    image is one Truth. `split` names a list in ImageSets/Main. Corners are taken as they stand: VOC
    counts pixels from 1, ILSVRC from 0; neither paper's code makes a difference.
    """
    wanted = _split(annotations, split) if split else None
    pictures: dict[str, list[Path]] = defaultdict(list)
    for path in _below(images, SUFFIXES):
        if wanted is None or path.stem in wanted:
            pictures[path.stem].append(path)
    for file in _below(annotations, {".xml"}):
        if wanted is not None and file.stem not in wanted:
            continue
        alike = pictures[file.stem]
        picture = max(alike, key=partial(_kinship, file), default=images / f"{file.stem}.jpg")
        if sum(_kinship(file, other) == _kinship(file, picture) for other in alike) > 1:
            detail = f"{len(alike)} images are called {file.stem}"
            yield Problem("annotation cannot be read", str(file), detail)
            continue
        pictures[file.stem] = [path for path in alike if path != picture]
        yield from _image(file, picture, str(picture.relative_to(images)))
    for left in pictures.values():
        yield from (Problem("image has no annotation", str(p.relative_to(images))) for p in left)


def _kinship(one: Path, other: Path) -> int:
    """How many folders up from the file are called alike."""
    pairs = zip(one.parent.parts[::-1], other.parent.parts[::-1], strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), 99)


def _below(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for file in sorted(files):
            path = Path(place, file)
            if path.suffix.lower() in suffixes and not file.startswith(".") and path.is_file():
                yield path


def _split(annotations: Path, split: str) -> set[str]:
    for folder in (annotations, annotations.parent):
        listed = folder / "ImageSets" / "Main" / f"{split}.txt"
        if os.path.isfile(listed):
            return {line.split()[0] for _, line in lines(listed)}
    raise UsageError(f"--split {split}: there is no ImageSets/Main/{split}.txt")


def _image(file: Path, picture: Path, image: str) -> Iterator[Found]:
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError("too large for one image's boxes")
        # Expat resolves no external entity, and stops where entities grow without end.
        root = ElementTree.parse(file).getroot()
        boxes: dict[str, list[Corners]] = defaultdict(list)
        for thing in root.iter("object"):
            boxes[_text(thing, "name")].append(_corners(thing))
        size = _size(root)
    except (OSError, ElementTree.ParseError, LookupError, ValueError, OverflowError) as error:
        yield Problem("annotation cannot be read", file.name, str(error))
        return
    for name, corners in boxes.items():
        yield Truth(image, picture, name, tuple(corners), size)
    if not boxes:
        yield Problem("image has no annotation", image, f"no object in {file.name}")


def _text(element: ElementTree.Element, tag: str) -> str:
    text = element.findtext(tag)
    if not text or not text.strip():
        raise ValueError(f"no <{tag}> in <{element.tag}>")
    return text.strip()


def _corners(thing: ElementTree.Element) -> Corners:
    box = thing.find("bndbox")
    if box is None:
        raise ValueError("an <object> without <bndbox>")
    x1, y1, x2, y2 = (float(_text(box, tag)) for tag in ("xmin", "ymin", "xmax", "ymax"))
    return x1, y1, x2, y2


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    size = root.find("size")
    if size is None:
        return None
    width, height = (int(float(_text(size, tag))) for tag in ("width", "height"))
    return (width, height) if width > 0 and height > 0 else None
