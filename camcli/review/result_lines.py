"""Parse the lines of results.jsonl, which anyone may have written: nothing in them is trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from camcli.core.errors import to_one_line
from camcli.core.types import Box, Failure, format_class_label, format_title

T = TypeVar("T")
Rectangle = tuple[float, float, float, float]  # left, top, right, bottom in pixels of the image
MAP_KIND = "map"  # the kind of file that `--save map` writes
MAX_SIDE = 2**31  # no image is longer or wider, in pixels


@dataclass(frozen=True, slots=True)
class StoredExplanation:
    """What a run found for one class of one image: the fields of results.schema.json.

    `mask` is the region above the threshold in COCO's run-length encoding. `files` has the names of
    the files by kind, relative to the run's folder; those that leave the folder are left out, and
    `outside_files` has them. `rival_names` are the classes that a contrast compares with.
    """

    class_index: int | None
    class_name: str
    score: float | None
    map_status: str
    boxes: tuple[Box, ...]
    files: Mapping[str, str]
    mask: Mapping[str, Any] | None = None
    is_predicted: bool | None = None
    targets: tuple[str, ...] = ()
    rival_names: tuple[str, ...] = ()
    is_low: bool = False
    score_kind: str = "probability"
    outside_files: tuple[str, ...] = ()

    @property
    def class_label(self) -> str:
        """The class and its rivals: "tabby", "tabby vs lynx"."""
        return format_class_label(self.class_name, self.rival_names, is_low=self.is_low)

    @property
    def title(self) -> str:
        """The class and its score: "tabby 0.83"; empty without a class."""
        if self.score is None:
            return self.class_label
        return format_title(self.class_label, self.score, self.score_kind)


@dataclass(frozen=True, slots=True, repr=False)
class StoredResult:
    """One line of results.jsonl: what a method found in an image of `width` x `height` pixels.

    `view` is the rectangle of the image that the map covers: a part of the image after a crop, more
    than the image after padding. `folder` is the run's folder, which `files` are relative to.
    """

    image: str
    path: str
    width: int
    height: int
    model: str
    method: str
    layers: tuple[str, ...]
    threshold: str | float
    explanations: tuple[StoredExplanation, ...]
    view: Rectangle
    refine: str = ""
    folder: Path | None = field(default=None, compare=False)

    @property
    def partial_view(self) -> Rectangle | None:
        """The view, if it is not the whole image."""
        whole = (0.0, 0.0, float(self.width), float(self.height))
        return None if self.view == whole else self.view

    @property
    def is_right(self) -> bool | None:
        """Whether the network predicts the true class; None where the run did not know it.

        The truth is the class that `--target folder` or `--target @file.csv` chose.
        """
        known = [e for e in self.explanations if any(map(_names_truth, e.targets))]
        return known[0].is_predicted if known else None

    def __repr__(self) -> str:
        shown = "; ".join(map(_format_explanation, self.explanations[:3]))
        more = "; …" if len(self.explanations) > 3 else ""
        return f"StoredResult({self.image!r}, {to_one_line(self.method)}: {shown}{more})"

    def _repr_html_(self) -> str:
        from camcli.review.notebook_view import create_result_html

        return create_result_html(self)


def _format_explanation(shown: StoredExplanation) -> str:
    """The class, its score, its status and its boxes, for people."""
    boxes = " ".join(f"{box.x1},{box.y1}-{box.x2},{box.y2}" for box in shown.boxes[:3])
    return ", ".join(filter(None, map(to_one_line, (shown.title, shown.map_status, boxes))))


def _names_truth(target: str) -> bool:
    return target == "folder" or target.startswith("@")


class LineError(ValueError):
    """A line is not what the schema says."""


def parse_result(line: Any) -> StoredResult | Failure:
    """Check an object of JSON and return the result or the failure. Raises LineError."""
    if not isinstance(line, dict):
        raise LineError("not an object")
    image, path = read_field(line, "image", str), read_field(line, "path", str)
    if line.get("status") == "failed":
        return Failure(image, path, read_field(line, "error", str))
    if line.get("status") != "ok":
        raise LineError("status")
    width, height = read_side(line, "width"), read_side(line, "height")
    threshold = line.get("threshold")
    return StoredResult(
        image=image,
        path=path,
        width=width,
        height=height,
        model=read_field(line, "model", str),
        method=read_field(line, "method", str),
        layers=tuple(read_texts(line, "layers")),
        threshold=threshold if isinstance(threshold, str) else read_number(line, "threshold"),
        explanations=tuple(
            parse_explanation(item, width, height)
            for item in read_field(line, "explanations", list)
        ),
        view=_read_view(line, width, height),
        refine=read_field(line, "refine", str, ""),
    )


def parse_explanation(item: Any, width: int, height: int) -> StoredExplanation:
    """Check the part of a line that is about one class. Raises LineError."""
    if not isinstance(item, dict):
        raise LineError("explanations")
    index = item.get("class_index")
    score = item.get("score")
    files, outside = _read_files(item)
    predicted = item.get("predicted")
    return StoredExplanation(
        class_index=None if index is None else read_count(item, "class_index"),
        class_name=read_field(item, "class_name", str)
        if item.get("class_name") is not None
        else "",
        score=None if score is None else read_number(item, "score"),
        map_status=read_field(item, "map_status", str),
        boxes=tuple(_read_box(box, width, height) for box in read_field(item, "boxes", list)),
        files=files,
        mask=_read_mask(item, width, height),
        is_predicted=predicted if isinstance(predicted, bool) else None,
        targets=tuple(read_texts(item, "targets")) if "targets" in item else (),
        rival_names=_read_rival_names(item),
        is_low=item.get("direction") == "low",
        score_kind=read_field(
            item, "score_kind", str, "probability" if index is not None else "none"
        ),
        outside_files=outside,
    )


def is_inside_folder(name: str) -> bool:
    """Whether a relative name stays in its folder, on every system."""
    parts = PurePosixPath(name).parts
    is_relative = not PurePosixPath(name).is_absolute() and not PureWindowsPath(name).anchor
    return bool(parts) and is_relative and ".." not in PureWindowsPath(name).parts


def read_field(line: Mapping[str, Any], key: str, kind: type[T], default: T | None = None) -> T:
    """The value of a key, which must be of this type. Raises LineError."""
    value = line.get(key, default)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise LineError(key)
    return value


def read_number(line: Mapping[str, Any], key: str) -> float:
    """The finite number of a key. Raises LineError."""
    return check_number(line.get(key), key)


def check_number(value: object, name: str) -> float:
    """A finite number; a LineError says the name of any other value."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise LineError(name)
    try:
        number = float(value)
    except OverflowError:
        raise LineError(name) from None
    if not math.isfinite(number):
        raise LineError(name)
    return number


def read_count(line: Mapping[str, Any], key: str) -> int:
    """The whole number of a key, from 0 to MAX_SIDE. Raises LineError."""
    value = read_field(line, key, int)
    if not 0 <= value < MAX_SIDE:
        raise LineError(key)
    return value


def read_side(line: Mapping[str, Any], key: str) -> int:
    """The whole number of a key, from 1 to MAX_SIDE. Raises LineError."""
    return check_side(line.get(key), key)


def check_side(value: object, name: str) -> int:
    """A whole number from 1 to MAX_SIDE; a LineError says the name of any other value."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < MAX_SIDE:
        raise LineError(name)
    return value


def read_texts(line: Mapping[str, Any], key: str) -> list[str]:
    """The list of texts of a key. Raises LineError."""
    items = read_field(line, key, list)
    if not all(isinstance(item, str) for item in items):
        raise LineError(key)
    return items


def _read_rival_names(item: Mapping[str, Any]) -> tuple[str, ...]:
    rivals = read_field(item, "against", list, [])
    return tuple(
        read_field(rival if isinstance(rival, dict) else {}, "class_name", str) for rival in rivals
    )


def _read_view(line: Mapping[str, Any], width: int, height: int) -> Rectangle:
    if "view" not in line:
        return 0.0, 0.0, float(width), float(height)
    view = line["view"] if isinstance(line["view"], dict) else {}
    edges = ("left", "top", "right", "bottom")
    left, top, right, bottom = (read_number(view, edge) for edge in edges)
    if not (left < right and top < bottom):
        raise LineError("view")
    return left, top, right, bottom


def _read_box(box: Any, width: int, height: int) -> Box:
    if not isinstance(box, dict):
        raise LineError("boxes")
    x1, y1, x2, y2 = (read_count(box, key) for key in ("x1", "y1", "x2", "y2"))
    if not (x1 < x2 <= width and y1 < y2 <= height):
        raise LineError("boxes")
    return Box(x1, y1, x2, y2, read_number(box, "score"))


def _read_mask(item: Mapping[str, Any], width: int, height: int) -> Mapping[str, Any] | None:
    if "mask" not in item:
        return None
    mask = item["mask"] if isinstance(item["mask"], dict) else {}
    if mask.get("size") != [height, width] or not isinstance(mask.get("counts"), str):
        raise LineError("mask")
    return {"size": [height, width], "counts": mask["counts"]}


def _read_files(item: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    files = read_field(item, "files", dict, {})
    if not all(isinstance(name, str) for name in files.values()):
        raise LineError("files")
    inside = {kind: name for kind, name in files.items() if is_inside_folder(name)}
    return inside, tuple(name for name in files.values() if not is_inside_folder(name))
