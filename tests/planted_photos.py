"""Artificial photographs: one shape on clutter, whose class and box are known."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

KINDS = {"disc": (220, 40, 40), "square": (40, 190, 60), "triangle": (50, 80, 230)}


def create_photo(kind: str, draw: np.random.Generator, side: int) -> tuple[Image.Image, list[int]]:
    """A coloured shape on grey clutter, and its box x1 y1 x2 y2."""
    clutter = draw.integers(0, 256, (8, 8), np.uint8)
    image = Image.fromarray(clutter).resize((side, side), Image.Resampling.BICUBIC).convert("RGB")
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, r = (int(draw.integers(0, side)) for _ in range(3))
        shade = int(draw.integers(0, 256))
        pen.line((x, y, r, side - y), fill=(shade, shade, shade), width=3)
    size = int(draw.integers(round(0.35 * side), round(0.55 * side)))
    left, top = (int(draw.integers(0, side - size)) for _ in range(2))
    box = [left, top, left + size, top + size]
    if kind == "disc":
        pen.ellipse(box, fill=KINDS[kind])
    elif kind == "square":
        pen.rectangle(box, fill=KINDS[kind])
    else:
        pen.polygon(((left + size / 2, top), (left, box[3]), (box[2], box[3])), fill=KINDS[kind])
    return image.filter(ImageFilter.GaussianBlur(0.7)), box


def write_photos(root: Path, each: int, held: int, side: int = 96, seed: int = 0) -> Path:
    """A folder for each class with `each` photographs to train on and `held` to validate with.

    boxes.csv has the boxes of the second.
    """
    draw = np.random.default_rng(seed)
    rows = []
    for kind in KINDS:
        (root / kind).mkdir(parents=True)
        for number in range(each + held):
            image, box = create_photo(kind, draw, side)
            image.save(root / kind / f"{number:03}.png")
            if number >= each:
                rows.append([f"{kind}/{number:03}.png", kind, side, side, *box])
    with (root / "boxes.csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["image", "class", "width", "height", "x1", "y1", "x2", "y2"])
        writer.writerows(rows)
    return root
