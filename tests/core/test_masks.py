"""Regions: what the boxes bound, as pixels of the original, and as COCO's runs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from camcli.core.boxes import find_boxes, find_regions, region_to_mask
from camcli.core.geometry import View
from camcli.core.run_length import RunLengths, encode_mask

GREY = Image.new("RGB", (97, 61), (128, 128, 128))
VIEWS = {
    "whole": View.from_whole_image(97, 61),
    "small image": View.from_whole_image(13, 9),
    "crop": View(97, 61, 18, 0, 79, 61),
    "padding": View(97, 61, 0, -18, 97, 79),
}


def smooth_map(seed: int, size: tuple[int, int]) -> NDArray[np.float32]:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(size), 2.0)
    scaled = (noise - noise.min()) / (noise.max() - noise.min())
    return np.asarray(scaled, np.float32)


def decode_slowly(runs: RunLengths) -> NDArray[np.bool_]:
    """COCO's format, bit by bit."""
    counts: list[int] = []
    position = 0
    while position < len(runs["counts"]):
        value = shift = 0
        while True:
            code = ord(runs["counts"][position]) - 48
            position += 1
            value |= (code & 31) << (5 * shift)
            shift += 1
            if not code & 32:
                value -= ((code >> 4) & 1) << (5 * shift)
                break
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    flat = [bool(n % 2) for n, count in enumerate(counts) for _ in range(count)]
    height, width = runs["size"]
    assert len(flat) == height * width
    return np.array(flat).reshape(width, height).T


def masks() -> list[NDArray[np.bool_]]:
    generator = np.random.default_rng(1)
    speckled = [generator.random(size) > 0.5 for size in ((1, 1), (7, 5), (40, 60))]
    shapes = [smooth_map(n, (120, 90)) > 0.5 for n in range(3)]
    plain = [np.zeros((4, 6), np.bool_), np.ones((4, 6), np.bool_), np.ones((300, 400), np.bool_)]
    return [*speckled, *shapes, *plain]


@pytest.mark.parametrize("number", range(9))
def test_runs_are_those_of_a_slow_decoder(number: int) -> None:
    mask = masks()[number]
    runs = encode_mask(mask)
    assert runs["size"] == list(mask.shape)
    assert np.array_equal(decode_slowly(runs), mask)


def test_runs_of_a_mask_by_hand() -> None:
    # Down the columns 0 1 1, 1 0 0: one 0, three 1, two 0.
    assert encode_mask(np.array([[0, 1], [1, 0], [1, 0]], np.bool_)) == {
        "size": [3, 2],
        "counts": "132",
    }


@pytest.mark.parametrize("number", range(9))
def test_runs_are_cocos(number: int) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    mask = masks()[number]
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode_mask(mask)["counts"].encode() == theirs["counts"]


def cover_slowly(region: NDArray[np.bool_], view: View) -> NDArray[np.bool_]:
    """Every cell covers the pixels between its rounded edges."""
    left, top, right, bottom = view.visible_rectangle
    across, down = (right - left) / region.shape[1], (bottom - top) / region.shape[0]
    mask = np.zeros((view.image_height, view.image_width), np.bool_)
    for y, x in zip(*np.nonzero(region), strict=True):
        y1, y2 = round(top + y * down), round(top + (y + 1) * down)
        x1, x2 = round(left + x * across), round(left + (x + 1) * across)
        mask[y1:y2, x1:x2] = True
    return mask


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
@pytest.mark.parametrize("seed", range(3))
def test_a_mask_is_the_region_cell_by_cell(view: View, seed: int) -> None:
    region = smooth_map(seed, (24, 24)) > 0.6
    assert np.array_equal(region_to_mask(region, view), cover_slowly(region, view))


def test_the_mask_of_a_small_image_lies_in_its_box() -> None:
    view = VIEWS["small image"]
    for seed in range(5):
        (box,), region = find_regions(smooth_map(seed, (24, 24)), 0.7, "largest", view, GREY)
        mask = region_to_mask(region, view)
        assert mask.any()
        mask[box.y1 : box.y2, box.x1 : box.x2] = False
        assert not mask.any()


@pytest.mark.parametrize("view", [VIEWS["whole"], VIEWS["crop"], VIEWS["padding"]])
@pytest.mark.parametrize("threshold", [0.2, 0.7, "otsu", "p90"])
def test_a_box_just_holds_its_mask(view: View, threshold: str | float) -> None:
    for seed in range(5):
        heat = smooth_map(seed, (24, 24))
        (box,), region = find_regions(heat, threshold, "largest", view, GREY)
        rows, cols = np.nonzero(region_to_mask(region, view))
        assert (box.x1, box.y1, box.x2, box.y2) == (
            cols.min(),
            rows.min(),
            cols.max() + 1,
            rows.max() + 1,
        )
        assert box.score == pytest.approx(heat[region].mean(), abs=1e-4)


def test_all_regions_are_the_map_above_the_threshold() -> None:
    for seed in range(5):
        heat = smooth_map(seed, (24, 24))
        boxes, region = find_regions(heat, 0.6, "all", VIEWS["whole"], GREY)
        assert np.array_equal(region, heat > np.float32(0.6) * heat.max())
        assert boxes == find_boxes(heat, 0.6, "all", VIEWS["whole"], GREY)


def test_the_largest_region_is_one_of_them() -> None:
    heat = np.zeros((20, 20), np.float32)
    heat[2:5, 2:5], heat[10:18, 6:19] = 1.0, 0.9
    heat[9, 5] = 0.9  # touches the corner of the larger region
    _, region = find_regions(heat, 0.5, "largest", VIEWS["whole"], GREY)
    expected = heat == np.float32(0.9)
    assert np.array_equal(region, expected)


def test_without_a_region_there_is_no_mask() -> None:
    heat = np.zeros((20, 20), np.float32)
    boxes, region = find_regions(heat, 0.2, "largest", VIEWS["whole"], GREY)
    assert boxes == ()
    assert not region_to_mask(region, VIEWS["whole"]).any()
