"""YOLO: one text file per image, and the data.yaml with which ultralytics trains."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import PurePath

from camcli.io.discovery import IMAGE_SUFFIXES
from camcli.review.exporters.export_content import (
    ExportContent,
    ExportFiles,
    ExportImage,
    ExportObject,
    ExportOptions,
)
from camcli.review.exporters.exporter_registry import exporter
from camcli.review.exporters.output_names import create_export_stems

IMAGE_FOLDER, LABEL_FOLDER = "images/train", "labels/train"
# ultralytics finds labels by replacing the last `images` in the path of an image.
RESERVED_FOLDERS = ("images",)


@exporter(help="data.yaml, labels/ and links to the images", options=("conf",))
def yolo(content: ExportContent, options: ExportOptions) -> ExportFiles:
    """A line per box: class, center x, center y, width, height as shares of the image.

    Classes are numbered from 0 without gaps. An image without boxes has an empty file, which means
    background. With `conf` a line ends with the score: ultralytics does not train on such files.
    """
    files = ExportFiles()
    classes = {category.number: index for index, category in enumerate(content.categories)}
    lost_count = 0
    for image, stem in zip(
        content.images, create_export_stems(content.images, RESERVED_FOLDERS), strict=True
    ):
        files.files[f"{LABEL_FOLDER}/{stem}.txt"] = _format_labels(image, classes, options.conf)
        if _is_image_file(image.path):
            suffix = PurePath(image.path).suffix
            files.links[f"{IMAGE_FOLDER}/{stem}{suffix}"] = image.path
        else:
            lost_count += 1
    files.files["data.yaml"] = _format_yaml(content)
    hint = "repeat the command in the folder where the run was made"
    files.add_problem(lost_count, "image", f"not found, so not in {IMAGE_FOLDER}; {hint}")
    return files


def _is_image_file(path: str) -> bool:
    """Whether the path is an image: a run of a stranger must not link other files."""
    return PurePath(path).suffix.lower() in IMAGE_SUFFIXES and os.path.isfile(path)


def _format_labels(image: ExportImage, classes: Mapping[int | str, int], with_score: bool) -> bytes:
    lines = [
        f"{classes[item.category.number]} {_format_box(image, item)}"
        + (f" {item.score:.6f}" if with_score else "")
        for item in image.objects
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def _format_box(image: ExportImage, item: ExportObject) -> str:
    box = item.box
    shares = (
        (box.x1 + box.x2) / 2 / image.width,
        (box.y1 + box.y2) / 2 / image.height,
        (box.x2 - box.x1) / image.width,
        (box.y2 - box.y1) / image.height,
    )
    return " ".join(f"{share:.6f}" for share in shares)


def _format_yaml(content: ExportContent) -> bytes:
    """The description of the data set. Without `path`, folders are relative to the file itself."""
    names = [
        f"  {index}: {json.dumps(category.name, ensure_ascii=False)}\n"
        for index, category in enumerate(content.categories)
    ]
    head = f"train: {IMAGE_FOLDER}\nval: {IMAGE_FOLDER}  # the same images: split them yourself\n"
    return (head + ("names:\n" + "".join(names) if names else "names: {}\n")).encode()
