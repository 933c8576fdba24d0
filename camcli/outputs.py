"""The files of a run: one function an output kind, atomic writes, names that mirror the input tree.

Knows nothing of methods.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from errno import EDQUOT, EEXIST, ENOSPC, EROFS
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from camcli import results
from camcli.errors import OutputError, StorageError
from camcli.labels import Labels
from camcli.maps import to_original, visible
from camcli.records import Explanation, Floats, Panel, Result, View
from camcli.render import (
    Cell,
    caption,
    cell_size,
    concepts,
    draw_boxes,
    grid,
    heatmap,
    no_answer,
    overlay,
)

NO_ROOM = (ENOSPC, EDQUOT, EROFS)  # of the whole disk, not of one file
COLUMNS = 7  # pictures a row in a grid

REASONS = {
    "constant": "the map is the same everywhere",
    "zero_gradient": "the gradient is zero here",
    "non_finite": "NaN or infinity in the map",
}
ENCODINGS: Mapping[str, Mapping[str, Any]] = {
    "jpg": {"format": "JPEG", "quality": 90},
    "png": {"format": "PNG", "compress_level": 1},
    "webp": {"format": "WEBP", "quality": 88},
}


@dataclass(frozen=True, slots=True)
class Style:
    """How pictures look, and the model's input size (H, W) at which maps are placed."""

    size: tuple[int, int]
    colormap: str = "jet"
    alpha: float = 0.5
    image_format: str = "jpg"
    boxed: bool = True


def _title(result: Result, shown: Explanation) -> str:
    return f"{shown.label} {shown.score:.2f} · {result.method}"


def _overlay(result: Result, shown: Explanation, style: Style) -> tuple[str, bytes]:
    picture = answer(result, shown, result.sample.picture, result.sample.view, style)
    if style.boxed:
        draw_boxes(picture, shown.boxes)
    caption(picture, _title(result, shown))
    return _picture(picture, style.image_format)


def _heatmap(result: Result, shown: Explanation, style: Style) -> tuple[str, bytes]:
    if result.concepts:
        blank = Image.new("RGB", result.sample.picture.size, (255, 255, 255))
        return _picture(answer(result, shown, blank, result.sample.view, style), "png")
    part = _seen(shown.fused, result.sample.view, style)
    if part is None:
        return _picture(no_answer(result.sample.picture, REASONS[shown.fused.status]), "png")
    return _picture(heatmap(part, result.sample.view, style.colormap), "png")


def _grid(result: Result, shown: Explanation, style: Style) -> tuple[str, bytes]:
    """image | layers | fused; or image | parts | result with the layers in rows below."""
    small = result.sample.picture.resize(cell_size(*result.sample.picture.size))
    view = result.sample.view.scaled(*small.size)

    def cell(panel: Panel) -> Cell:
        return Cell(result.labels.get(panel.name, panel.name), over(small, panel, view, style))

    layers = [cell(panel) for panel in shown.layers]
    if result.concepts:
        together = Cell("all", answer(result, shown, small, view, style))
        rows = _wrapped([Cell("image", small), *map(cell, shown.parts), together], COLUMNS)
        return _picture(grid(_title(result, shown), rows), style.image_format)
    fused = [] if shown.fused in shown.layers else [cell(shown.fused)]
    if shown.parts:
        rows = [[Cell("image", small), *map(cell, shown.parts), *fused], *_wrapped(layers, 6)]
    else:
        rows = _wrapped([Cell("image", small), *layers, *fused], COLUMNS)
    return _picture(grid(_title(result, shown), rows), style.image_format)


def _boxes(result: Result, shown: Explanation, style: Style) -> tuple[str, bytes]:
    view = result.sample.view
    document = {
        "image": result.sample.source.name,
        "width": view.width,
        "height": view.height,
        "method": result.method,
        "threshold": result.threshold,
        **results.describe_class(shown),
    }
    return "json", f"{results.to_json(document)}\n".encode()


KINDS: Mapping[str, Callable[[Result, Explanation, Style], tuple[str, bytes]]] = {
    "overlay": _overlay,
    "heatmap": _heatmap,
    "grid": _grid,
    "boxes": _boxes,
}
ARRAY = "array"


def answer(
    result: Result, shown: Explanation, picture: Image.Image, view: View, style: Style
) -> Image.Image:
    """The map over a picture; of concepts all of them, each in its colour, with a legend."""
    if not result.concepts or shown.fused.status != "ok":
        return over(picture, shown.fused, view, style)
    strongest = max(float(panel.values.max()) for panel in shown.parts)
    total = sum(float(panel.values.sum()) for panel in shown.parts)
    heats = [
        to_original(part, view) * (float(panel.values.max()) / strongest)
        for panel in shown.parts
        for part in [visible(panel.shown, view, style.size)]
    ]
    names = [f"{p.name}  {float(p.values.sum()) / total:.0%}" for p in shown.parts]
    return concepts(picture, heats, names)


def over(picture: Image.Image, panel: Panel, view: View, style: Style) -> Image.Image:
    """A map over its picture; or the picture saying why there is no map."""
    part = _seen(panel, view, style)
    if part is None:
        blank = "constant" if panel.status == "ok" else panel.status
        return no_answer(picture, REASONS[blank])
    return overlay(picture, part, view, style.colormap, style.alpha)


def _seen(panel: Panel, view: View, style: Style) -> Floats | None:
    """The visible part of a map, or None where there is nothing to show."""
    part = visible(panel.shown, view, style.size) if panel.part is None else panel.part
    return part if panel.status == "ok" and part.any() else None


def _wrapped(cells: list[Cell], columns: int) -> list[list[Cell]]:
    return [cells[i : i + columns] for i in range(0, len(cells), columns)]


def _picture(picture: Image.Image, image_format: str) -> tuple[str, bytes]:
    buffer = io.BytesIO()
    try:
        picture.save(buffer, **ENCODINGS[image_format])
    except (OSError, ValueError) as error:
        size = f"{picture.width}x{picture.height}"
        raise OutputError(f"a {size} picture cannot be saved as {image_format}: {error}") from None
    return image_format, buffer.getvalue()


def _array(result: Result) -> bytes:
    """Raw maps, float32: "{class}/{layer}", the parts of TS-CAM, and "{class}/fused".

    Neither normalised nor resized, but for the fusion of several layers: that is made of their
    scaled maps at the input's size.
    """
    arrays = {
        f"{shown.class_index}/{panel.name}": panel.values
        for shown in result.explanations
        for panel in (*shown.layers, *shown.parts, replace(shown.fused, name="fused"))
    }
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def save(
    result: Result, kinds: Sequence[str], style: Style, output: Path, slugs: Sequence[str]
) -> Result:
    """Write the chosen kinds of file below `output`, and return the result with their names.

    `slugs` has the part of a file name for each class. Raises OutputError.
    """
    stem = safe_stem(result.sample.source.stem)
    tag = f".{result.tag}" if result.tag else ""
    files: list[dict[str, str]] = []
    for shown in result.explanations:
        written = {}
        for kind in (k for k in kinds if k in KINDS):
            suffix, content = KINDS[kind](result, shown, style)
            written[kind] = f"{stem}.{slug(shown, slugs)}{tag}.{kind}.{suffix}"
            write(output / written[kind], content)
        files.append(written | ({ARRAY: f"{stem}{tag}.npz"} if ARRAY in kinds else {}))
    if ARRAY in kinds:
        write(output / f"{stem}{tag}.npz", _array(result))
    return replace(result, files=tuple(files))


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: under a temporary name, then moved.

    Raises OutputError; StorageError where no other file could be written either.
    """
    # Always the same name: what a killed run leaves behind is replaced when the file is made.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        _write_new(temporary, content)
        temporary.replace(path)
    except RecursionError:
        raise OutputError(f"cannot write {path}: too many folders deep") from None
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        kind = StorageError if error.errno in NO_ROOM else OutputError
        raise kind(f"cannot write {path}: {error.strerror}") from None


def _write_new(path: Path, content: bytes) -> None:
    """Into a file that was not there before: never through a link."""
    for _ in range(2):
        try:
            with path.open("xb") as file:
                file.write(content)
            return
        except FileExistsError:
            path.unlink()
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
    raise OSError(EEXIST, os.strerror(EEXIST))


def safe_stem(stem: str) -> str:
    """A stem short enough for any file system once kind and class are added."""
    folder, _, name = stem.rpartition("/")
    raw = name.encode(errors="surrogateescape")
    if len(raw) > 100:
        name = f"{raw[:60].decode(errors='ignore')}-{hashlib.sha256(raw).hexdigest()[:8]}"
    return f"{folder}/{name}" if folder else name


def class_slugs(labels: Labels) -> list[str]:
    """A distinct part of a file name for each class: `egyptian-cat`; `crane-134` where two meet."""
    plain = ["-".join(re.findall(r"\w+", name)).casefold() for name in labels.names]
    slugs = [slug.encode()[:40].decode(errors="ignore") for slug in plain]
    count = Counter(slugs)
    taken = {slug for slug in slugs if slug and count[slug] == 1}
    return [slug if slug in taken else _numbered(slug, i, taken) for i, slug in enumerate(slugs)]


def slug(shown: Explanation, slugs: Sequence[str]) -> str:
    """Of the class, and of what it is set against: `tabby-vs-lynx`, `tabby-vs-3-nearest`."""
    own = slugs[shown.class_index]
    if not shown.against:
        return own
    others = [slugs[index] for index, _ in shown.against]
    return f"{own}-vs-{others[0] if len(others) == 1 else f'{len(others)}-nearest'}"


def _numbered(slug: str, index: int, taken: set[str]) -> str:
    candidate = f"{slug or 'class'}-{index}"
    while candidate in taken:
        candidate = f"{candidate}-{index}"
    return candidate
