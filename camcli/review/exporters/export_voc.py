"""PASCAL VOC: one XML file per image."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree

from camcli.core.errors import to_one_line
from camcli.review.exporters.export_content import (
    ExportContent,
    ExportFiles,
    ExportImage,
    ExportObject,
    ExportOptions,
)
from camcli.review.exporters.exporter_registry import exporter
from camcli.review.exporters.output_names import create_export_stems


@exporter(help="one XML file per image in Annotations/")
def voc(content: ExportContent, options: ExportOptions) -> ExportFiles:
    """The boxes in VOC's counting: pixels from 1, and xmax and ymax belong to the box.

    `ImageSets/Main/default.txt` lists the images. The format has no place for scores.
    """
    stems = create_export_stems(content.images)
    files = {
        f"Annotations/{stem}.xml": _format_image(image)
        for stem, image in zip(stems, content.images, strict=True)
    }
    files["ImageSets/Main/default.txt"] = "".join(f"{stem}\n" for stem in stems).encode()
    return ExportFiles(files)


def _format_image(image: ExportImage) -> bytes:
    root = ElementTree.Element("annotation")
    _add_texts(root, {"filename": image.name})
    _add_texts(ElementTree.SubElement(root, "source"), {"database": "camcli"})
    size = {"width": image.width, "height": image.height, "depth": 3}
    _add_texts(ElementTree.SubElement(root, "size"), size)
    _add_texts(root, {"segmented": 0})
    for item in image.objects:
        _add_object(root, item)
    ElementTree.indent(root)
    text: str = ElementTree.tostring(root, encoding="unicode")
    return f"{text}\n".encode()


def _add_object(root: ElementTree.Element, item: ExportObject) -> None:
    box = item.box
    element = ElementTree.SubElement(root, "object")
    flags = {"pose": "Unspecified", "truncated": 0, "difficult": 0}
    _add_texts(element, {"name": item.category.name, **flags})
    corners = {"xmin": box.x1 + 1, "ymin": box.y1 + 1, "xmax": box.x2, "ymax": box.y2}
    _add_texts(ElementTree.SubElement(element, "bndbox"), corners)


def _add_texts(parent: ElementTree.Element, texts: Mapping[str, object]) -> None:
    """Add an element for each text; XML cannot hold control characters, so they are escaped."""
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = to_one_line(text)
