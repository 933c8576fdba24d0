"""COCO: annotations that most tools read as ground truth, and results for `COCO.loadRes`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from camcli.core.errors import UsageError
from camcli.review.exporters.export_content import (
    ExportContent,
    ExportFiles,
    ExportImage,
    ExportObject,
    ExportOptions,
    encode_json,
)
from camcli.review.exporters.exporter_registry import exporter
from camcli.review.exporters.segmentation import Segmentation, create_segmentations

ANNOTATIONS_FILE, RESULTS_FILE = "annotations.json", "results.json"


@exporter(help="annotations.json and results.json", options=("masks", "categories"))
def coco(content: ExportContent, options: ExportOptions) -> ExportFiles:
    """The annotations, and the same boxes as a list of results with scores.

    Boxes are x, y, width, height in pixels, not rounded. The extra keys `map_score`, `method` and,
    of a contrast, `label` do not disturb other readers.
    """
    files = ExportFiles()
    if options.masks:
        _check_has_masks(content)
    entries = list(_iter_entries(content, options, files))
    annotations = [{"id": n, **entry, "iscrowd": 0} for n, entry in enumerate(entries, 1)]
    results = [{key: value for key, value in entry.items() if key != "area"} for entry in entries]
    document = {
        "info": {"description": f"camcli: {content.method} of {content.model}"},
        "licenses": [],
        "images": [_image_to_json(image) for image in content.images],
        "annotations": annotations,
        "categories": [{"id": c.number, "name": c.name} for c in content.categories],
    }
    files.files[ANNOTATIONS_FILE] = encode_json(document)
    files.files[RESULTS_FILE] = encode_json(results)
    if not results:
        files.notes.append(f"pycocotools cannot load an empty list: {RESULTS_FILE} is []")
    return files


def _check_has_masks(content: ExportContent) -> None:
    objects = [item for image in content.images for item in image.objects]
    if objects and not any(item.explanation.mask for item in objects):
        raise UsageError("--masks: the run has no masks; repeat it with --save mask")


def _iter_entries(
    content: ExportContent, options: ExportOptions, files: ExportFiles
) -> Iterator[dict[str, Any]]:
    """The boxes of all images, with the keys that annotations and results share."""
    lost_count = holed_count = 0
    for image in content.images:
        segmentations: list[Segmentation | None] = [None] * len(image.objects)
        if options.masks:
            segmentations = create_segmentations(image, options.masks)
        for item, found in zip(image.objects, segmentations, strict=True):
            yield _object_to_json(image, item, content.method) | _segmentation_to_json(found)
            lost_count += bool(options.masks) and found is None
            holed_count += found is not None and found.hole_count > 0
    files.add_problem(lost_count, "box", "without segmentation: the mask is missing or damaged")
    files.add_note(holed_count, "mask", "with holes, which polygons cannot have; use --masks rle")


def _image_to_json(image: ExportImage) -> dict[str, Any]:
    return {
        "id": image.number,
        "file_name": image.name,
        "width": image.width,
        "height": image.height,
    }


def _object_to_json(image: ExportImage, item: ExportObject, method: str) -> dict[str, Any]:
    box, shown = item.box, item.explanation
    width, height = box.x2 - box.x1, box.y2 - box.y1
    # What a contrast compares with, or the direction of a regression, is not part of the class.
    label = {} if shown.class_label == shown.class_name else {"label": shown.class_label}
    return {
        "image_id": image.number,
        "category_id": item.category.number,
        "bbox": [box.x1, box.y1, width, height],
        "area": width * height,
        "score": item.score,
        "map_score": box.score,
        "method": method,
        **label,
    }


def _segmentation_to_json(found: Segmentation | None) -> dict[str, Any]:
    return {"segmentation": found.value, "area": found.area} if found else {}
