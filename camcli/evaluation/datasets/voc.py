"""PASCAL VOC's XML, which ILSVRC uses too: one file per image."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from xml.etree import ElementTree

from camcli.core.errors import UsageError
from camcli.evaluation.datasets.annotations import Annotation, AnnotationOrProblem, Corners, Problem
from camcli.evaluation.datasets.reader import DatasetPaths, DatasetReader
from camcli.evaluation.datasets.reader_registry import register_reader
from camcli.evaluation.datasets.text_files import load_nonempty_lines
from camcli.io.discovery import IMAGE_SUFFIXES

MAX_XML_BYTES = 2**20  # the annotation of one image has a few thousand


def _has_xml(paths: DatasetPaths) -> bool:
    folder = paths.annotations or paths.root
    if not folder.is_dir() or any((folder / "annotations").glob("instances*.json")):
        return False  # COCO's annotations folder may lie beside any number of images
    return next(folder.rglob("*.xml"), None) is not None


def _read_annotations(paths: DatasetPaths) -> Iterator[AnnotationOrProblem]:
    return read_voc(paths.annotations or paths.root, paths.images or paths.root, paths.split)


def read_voc(annotations: Path, images: Path, split: str | None) -> Iterator[AnnotationOrProblem]:
    """Read every XML file below `annotations`, with the image of its name below `images`.

    If several images have this name, the one in the folder of the same name belongs to the file.
    Each class of an image is one annotation. `split` names a list in ImageSets/Main. Corners are
    used as they are: VOC counts pixels from 1, ILSVRC from 0; neither paper's code corrects it.
    """
    wanted = _load_split_names(annotations, split) if split else None
    pictures: dict[str, list[Path]] = defaultdict(list)
    for path in _iter_files_below(images, IMAGE_SUFFIXES):
        if wanted is None or path.stem in wanted:
            pictures[path.stem].append(path)
    for file in _iter_files_below(annotations, {".xml"}):
        if wanted is not None and file.stem not in wanted:
            continue
        alike = pictures[file.stem]
        common = {path: _count_common_parents(file, path) for path in alike}
        closest = [path for path in alike if common[path] == max(common.values())]
        if len(closest) > 1:
            detail = f"{len(alike)} images are named {file.stem}"
            yield Problem("annotation cannot be read", str(file), detail)
            continue
        picture = closest[0] if closest else images / f"{file.stem}.jpg"
        pictures[file.stem] = [path for path in alike if path != picture]
        yield from _read_image_xml(file, picture, str(picture.relative_to(images)))
    for left in pictures.values():
        yield from (Problem("image has no annotation", str(p.relative_to(images))) for p in left)


def _count_common_parents(one: Path, other: Path) -> int:
    """Count the parent folders with equal names, from the files upward."""
    pairs = zip(one.parent.parts[::-1], other.parent.parts[::-1], strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), 99)


def _iter_files_below(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for file in sorted(files):
            path = Path(place, file)
            if path.suffix.lower() in suffixes and not file.startswith(".") and path.is_file():
                yield path


def _load_split_names(annotations: Path, split: str) -> set[str]:
    for folder in (annotations, annotations.parent):
        listed = folder / "ImageSets" / "Main" / f"{split}.txt"
        if os.path.isfile(listed):
            return {line.split()[0] for _, line in load_nonempty_lines(listed)}
    raise UsageError(f"--split {split}: there is no ImageSets/Main/{split}.txt")


def _read_image_xml(file: Path, picture: Path, image: str) -> Iterator[AnnotationOrProblem]:
    try:
        if file.stat().st_size > MAX_XML_BYTES:
            raise ValueError("the file is too large for the boxes of one image")
        # Expat loads no external entity and stops at entities that expand without limit.
        root = ElementTree.parse(file).getroot()
        boxes: dict[str, list[Corners]] = defaultdict(list)
        for thing in root.iter("object"):
            boxes[_read_tag_text(thing, "name")].append(_read_bndbox(thing))
        size = _read_xml_size(root)
    except (OSError, ElementTree.ParseError, LookupError, ValueError, OverflowError) as error:
        yield Problem("annotation cannot be read", file.name, str(error))
        return
    for name, corners in boxes.items():
        yield Annotation(image, picture, name, tuple(corners), size)
    if not boxes:
        yield Problem("image has no annotation", image, f"{file.name} contains no object")


def _read_tag_text(element: ElementTree.Element, tag: str) -> str:
    text = element.findtext(tag)
    if not text or not text.strip():
        raise ValueError(f"a <{element.tag}> has no <{tag}>")
    return text.strip()


def _read_bndbox(thing: ElementTree.Element) -> Corners:
    box = thing.find("bndbox")
    if box is None:
        raise ValueError("an <object> has no <bndbox>")
    x1, y1, x2, y2 = (float(_read_tag_text(box, tag)) for tag in ("xmin", "ymin", "xmax", "ymax"))
    return x1, y1, x2, y2


def _read_xml_size(root: ElementTree.Element) -> tuple[int, int] | None:
    size = root.find("size")
    if size is None:
        return None
    width, height = (int(float(_read_tag_text(size, tag))) for tag in ("width", "height"))
    return (width, height) if width > 0 and height > 0 else None


register_reader(
    DatasetReader(
        name="VOC XML",
        recognized_by="VOC's or ILSVRC's *.xml",
        priority=50,
        detect=_has_xml,
        read_annotations=_read_annotations,
    )
)
