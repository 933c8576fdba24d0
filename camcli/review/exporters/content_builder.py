"""Turn the results of a run into images, classes and boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from camcli.core.errors import to_one_line
from camcli.review.exporters.export_content import (
    ExportCategory,
    ExportContent,
    ExportImage,
    ExportObject,
)
from camcli.review.exporters.row_selection import ExportRow
from camcli.review.result_lines import StoredExplanation, StoredResult
from camcli.review.stored_run import StoredRun

NO_CLASS = "object"  # the class of boxes of a network without classes
Categories = Mapping[int | None, ExportCategory]


def create_content(run: StoredRun, row: ExportRow | None) -> ExportContent:
    """The images of a run with the boxes of one row.

    Images that only other rows have are listed without boxes, because their size is known. If an
    image has two lines in a row, as in files that were joined by hand, the first one counts.
    """
    chosen = [result for result in run if row and row.has(result)]
    categories = _create_categories(chosen)
    first_lines, own_lines = _index_by_image(run.results), _index_by_image(chosen)
    images = [
        _create_image(number, line, own_lines.get(key), categories)
        for number, (key, line) in enumerate(first_lines.items(), 1)
    ]
    return ExportContent(
        model=to_one_line(chosen[0].model) if chosen else "",
        method=to_one_line(row.method) if row else "",
        categories=tuple(sorted(categories.values(), key=lambda category: int(category.number))),
        images=tuple(_name_apart(images)),
    )


def _index_by_image(results: Sequence[StoredResult]) -> dict[object, StoredResult]:
    """The first result of each image."""
    found: dict[object, StoredResult] = {}
    for result in results:
        found.setdefault((result.image, result.path, result.width, result.height), result)
    return found


def _create_image(
    number: int, line: StoredResult, own_line: StoredResult | None, categories: Categories
) -> ExportImage:
    explanations = own_line.explanations if own_line else ()
    objects = [item for shown in explanations for item in _iter_objects(shown, categories)]
    return ExportImage(
        number, line.image, line.path, line.width, line.height, objects=tuple(objects)
    )


def _iter_objects(explanation: StoredExplanation, categories: Categories) -> Iterator[ExportObject]:
    if explanation.map_status != "ok":  # a map without an answer has no boxes
        return
    is_probability = explanation.score_kind == "probability"
    probability = explanation.score if is_probability else None
    for box in explanation.boxes:
        score = box.score if probability is None else probability
        category = categories[explanation.class_index]
        yield ExportObject(category, box, min(max(score, 0.0), 1.0), explanation)


def _create_categories(results: Sequence[StoredResult]) -> dict[int | None, ExportCategory]:
    """The classes of the results by index. Numbers are class_index + 1, as CVAT and others need.

    Boxes of a network without classes get one class after all others.
    """
    names: dict[int | None, str] = {}
    for shown in (shown for result in results for shown in result.explanations):
        names.setdefault(shown.class_index, shown.class_name)
    known = sorted(index for index in names if index is not None)
    numbers: dict[int | None, int] = {index: index + 1 for index in known}
    if None in names:
        numbers[None] = max(known, default=-1) + 2
    clean = {index: _clean_name(index, names[index]) for index in numbers}
    distinct = _make_distinct(clean)
    return {
        index: ExportCategory(number, distinct[index], names[index] or distinct[index])
        for index, number in numbers.items()
    }


def _clean_name(index: int | None, name: str) -> str:
    """A name of one line, because most formats cannot hold control characters."""
    return to_one_line(name).strip() or (NO_CLASS if index is None else f"class {index}")


def _make_distinct(names: Mapping[int | None, str]) -> dict[int | None, str]:
    """Add the index to names that repeat: ImageNet has two cranes, and most formats go by name."""
    counts = Counter(names.values())
    taken = {name for name in counts if counts[name] == 1}
    distinct = {}
    for index, name in names.items():
        own = name if counts[name] == 1 else f"{name} ({index})"
        while counts[name] > 1 and own in taken:
            own = f"{own} ({index})"
        taken.add(own)
        distinct[index] = own
    return distinct


def _name_apart(images: Sequence[ExportImage]) -> list[ExportImage]:
    """Name an image by its path if another one has the same name in another input."""
    counts = Counter(image.name for image in images)
    return [
        image if counts[image.name] == 1 else replace(image, name=image.path) for image in images
    ]
