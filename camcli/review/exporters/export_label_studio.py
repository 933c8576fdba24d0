"""Label Studio: tasks with pre-annotations, and the labelling configuration for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from camcli.review.exporters.export_content import (
    ExportContent,
    ExportFiles,
    ExportImage,
    ExportObject,
    ExportOptions,
    encode_json,
)
from camcli.review.exporters.exporter_registry import exporter

LOCAL_FILES = "/data/local-files/?d="  # Label Studio serves files below its document root here
FROM_NAME, TO_NAME = "label", "image"


@exporter(help="tasks.json and config.xml")
def label_studio(content: ExportContent, options: ExportOptions) -> ExportFiles:
    """The boxes as predictions, in percent of the image.

    The address of an image is relative to the current folder, which has to be Label Studio's
    document root.
    """
    files = ExportFiles()
    paths = [_find_local_path(image.path) for image in content.images]
    outside_count = sum(path.startswith("/") for path in paths)
    files.add_note(outside_count, "image", "outside the current folder: the address begins at /")
    pairs = zip(content.images, paths, strict=True)
    tasks = [_create_task(content, image, path) for image, path in pairs]
    files.files["tasks.json"] = encode_json(tasks)
    files.files["config.xml"] = _format_config(content)
    return files


def _find_local_path(path: str) -> str:
    """The path relative to the current folder, or from the root if it lies elsewhere."""
    current = Path.cwd()
    whole = Path(os.path.normpath(current / path))
    return (whole.relative_to(current) if whole.is_relative_to(current) else whole).as_posix()


def _create_task(content: ExportContent, image: ExportImage, path: str) -> dict[str, Any]:
    url = f"{LOCAL_FILES}{quote(_encode_path(path.lstrip('/')))}"
    results = [_object_to_json(image, item, n) for n, item in enumerate(image.objects, 1)]
    prediction = {
        "model_version": f"{content.model} {content.method}",
        "score": max((item.score for item in image.objects), default=0.0),
        "result": results,
    }
    return {"data": {TO_NAME: url}, "predictions": [prediction] if results else []}


def _encode_path(path: str) -> bytes:
    """The bytes of a file name; a text that no file can have becomes one with question marks."""
    try:
        return os.fsencode(path)
    except UnicodeEncodeError:
        return path.encode(errors="replace")


def _object_to_json(image: ExportImage, item: ExportObject, number: int) -> dict[str, Any]:
    box, across, down = item.box, 100 / image.width, 100 / image.height
    return {
        "id": f"{image.number}-{number}",
        "type": "rectanglelabels",
        "from_name": FROM_NAME,
        "to_name": TO_NAME,
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
        "score": item.score,
        "value": {
            "x": box.x1 * across,
            "y": box.y1 * down,
            "width": (box.x2 - box.x1) * across,
            "height": (box.y2 - box.y1) * down,
            "rotation": 0,
            "rectanglelabels": [item.category.name],
        },
    }


def _format_config(content: ExportContent) -> bytes:
    root = ElementTree.Element("View")
    ElementTree.SubElement(root, "Image", name=TO_NAME, value=f"${TO_NAME}")
    labels = ElementTree.SubElement(root, "RectangleLabels", name=FROM_NAME, toName=TO_NAME)
    for category in content.categories:
        ElementTree.SubElement(labels, "Label", value=category.name)
    ElementTree.indent(root)
    text: str = ElementTree.tostring(root, encoding="unicode")
    return f"{text}\n".encode()
