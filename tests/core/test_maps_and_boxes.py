"""Normalise, resize, fuse, go back to the original, and box."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import gradient_image
from PIL import Image
from scipy import ndimage

from camcli.core import geometry, maps
from camcli.core.boxes import compute_cutoff, compute_otsu_threshold, find_boxes
from camcli.core.geometry import Float32Array, View
from camcli.core.types import FitMode, Transform
from camcli.engine import fusion
from camcli.io.transforms import compute_view

WHOLE = View(100, 50, 0, 0, 100, 50)
GREY = Image.new("RGB", (100, 50), "grey")


def blob(height: int, width: int, *spots: tuple[int, int, int, int, float]) -> Float32Array:
    """A map with rectangles of given values: x1, y1, x2, y2, value."""
    canvas = np.zeros((height, width), np.float32)
    for x1, y1, x2, y2, value in spots:
        canvas[y1:y2, x1:x2] = value
    return canvas


def test_normalise_is_min_max_a_map() -> None:
    both = torch.tensor([[[-2.0, 0.0], [2.0, 6.0]], [[0.0, 10.0], [5.0, 0.0]]])
    assert maps.normalize_maps(both)[0].tolist() == [[0, 0.25], [0.5, 1]]
    assert maps.normalize_maps(both)[1].tolist() == [[0, 1], [0.5, 0]]


@pytest.mark.parametrize("value", [0.0, 7.0, math.nan, math.inf])
def test_no_contrast_is_invented(value: float) -> None:
    flat = torch.full((1, 3, 3), value)
    assert not maps.normalize_maps(flat).any()


def words(values: torch.Tensor, *dead: bool) -> list[str]:
    return [
        maps.MAP_STATUSES[code]
        for code in maps.compute_status_codes(values, torch.tensor(dead)).tolist()
    ]


def test_one_bad_value_spoils_its_own_map_only() -> None:
    both = torch.rand(2, 3, 3)
    both[0, 1, 1] = math.nan
    assert words(both, False, False) == ["non_finite", "ok"]
    assert maps.normalize_maps(both)[1].max() == 1


def test_statuses_name_the_cause_that_comes_first() -> None:
    zero = torch.zeros(2, 2, 2)
    assert words(zero, True, False) == ["zero_gradient", "constant"]


def test_resize_on_and_off_the_device_agree() -> None:
    small = torch.rand(1, 7, 5)
    there = maps.resize_maps(small, (224, 160))[0].numpy()
    here = geometry.resize_map(small[0].numpy(), (224, 160))
    assert np.abs(there - here).max() < 1e-5


def test_layercam_scales_shallow_layers_only() -> None:
    layer = torch.tensor([[[0.0, 1.0], [2.0, 4.0]]])
    shallow = fusion.scale_for_layercam(layer, stride=8)[0]
    expected = [[0.0, math.tanh(0.5)], [math.tanh(1.0), math.tanh(2.0)]]
    assert torch.allclose(shallow, torch.tensor(expected) / math.tanh(2.0))
    assert torch.allclose(fusion.scale_for_layercam(layer, stride=16)[0], layer[0] / 4)


@pytest.mark.parametrize(("name", "value"), [("max", 0.8), ("mean", 0.5), ("product", 0.16)])
def test_fusions(name: str, value: float) -> None:
    layers = [torch.full((1, 2, 2), 0.2), torch.full((1, 4, 4), 0.8)]
    fused = fusion.fuse_maps(layers, fusion.FUSIONS[name], (8, 8))
    assert torch.allclose(fused, torch.full((1, 8, 8), value))


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(300, 200), (120, 480)])
def test_a_map_returns_to_where_the_picture_was(fit: FitMode, size: tuple[int, int]) -> None:
    """The map is the input's own red channel: on the original it must be the original's."""
    from camcli.io.transforms import preprocess_image

    transform = Transform((96, 96), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), crop_pct=0.875)
    image = gradient_image(*size)
    view = compute_view(*size, transform, fit)
    red = preprocess_image(image, view, transform)[0]
    back = geometry.map_to_original(geometry.crop_visible_map(red, view, (96, 96)), view)
    assert back.shape == (size[1], size[0])
    known = np.isfinite(back)
    original = np.asarray(image, np.float32)[..., 0] / 255
    low, high = original[known].min(), original[known].max()
    assert np.abs(back[known] - (original[known] - low) / (high - low)).max() < 0.03
    assert known.all() == (fit != "crop")


def test_the_largest_region_by_pixels_is_boxed_half_open() -> None:
    canvas = blob(50, 100, (10, 5, 20, 9, 1.0), (60, 20, 95, 45, 0.5))
    found = find_boxes(canvas, 0.2, "largest", WHOLE, GREY)
    assert [(b.x1, b.y1, b.x2, b.y2, b.score) for b in found] == [(60, 20, 95, 45, 0.5)]


def test_all_regions_largest_first_and_diagonals_connect() -> None:
    canvas = blob(50, 100, (0, 0, 2, 2, 1.0), (2, 2, 4, 4, 1.0), (50, 10, 60, 20, 1.0))
    found = find_boxes(canvas, 0.2, "all", WHOLE, GREY)
    assert [(b.x1, b.y1, b.x2, b.y2) for b in found] == [(50, 10, 60, 20), (0, 0, 4, 4)]


def test_the_threshold_is_exclusive_and_of_the_maximum() -> None:
    canvas = blob(50, 100, (0, 0, 50, 50, 0.25), (0, 0, 10, 10, 0.5))
    assert find_boxes(canvas, 0.5, "largest", WHOLE, GREY)[0].x2 == 10
    assert find_boxes(canvas, 0.49, "largest", WHOLE, GREY)[0].x2 == 50


def test_nothing_above_the_threshold_is_no_box() -> None:
    assert find_boxes(np.zeros((50, 100), np.float32), 0.2, "all", WHOLE, GREY) == ()


def test_otsu_of_a_blank_map_finds_nothing() -> None:
    assert find_boxes(np.zeros((50, 100), np.float32), "otsu", "all", WHOLE, GREY) == ()


def test_percentiles() -> None:
    canvas = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    assert compute_cutoff(canvas, "p90") == pytest.approx(np.percentile(canvas, 90))


def test_otsu_is_the_best_of_all_cuts() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.25, 0.08, 600), rng.normal(0.7, 0.1, 400)])
    canvas = np.clip(values, 0, 1).astype(np.float32).reshape(20, 50)

    def between(level: float) -> float:
        low, high = canvas[canvas <= level], canvas[canvas > level]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) * len(high) else 0

    best = max(between(k / 256) for k in range(1, 256))
    assert between(compute_otsu_threshold(canvas)) == pytest.approx(best, rel=1e-2)


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_boxes_return_to_the_original(fit: FitMode) -> None:
    view = compute_view(300, 200, Transform((96, 96), crop_pct=0.875), fit)
    left, top, right, bottom = view.visible_rectangle
    height, width = (96, 96) if fit != "pad" else (64, 96)
    part = blob(height, width, (width // 4, height // 4, width // 2, height // 2, 1.0))
    box = find_boxes(part, 0.2, "largest", view, GREY)[0]
    expected = (
        left + (right - left) / 4,
        top + (bottom - top) / 4,
        left + (right - left) / 2,
        top + (bottom - top) / 2,
    )
    assert np.abs(np.subtract((box.x1, box.y1, box.x2, box.y2), expected)).max() <= 1


def test_boxes_agree_with_a_slow_search() -> None:
    rng = np.random.default_rng(3)
    canvas = ndimage.gaussian_filter(rng.random((50, 100)), 3).astype(np.float32)
    canvas = (canvas - canvas.min()) / (canvas.max() - canvas.min())
    best: set[tuple[int, int]] = set()
    seen: set[tuple[int, int]] = set()
    for start in zip(*np.nonzero(canvas > 0.5), strict=True):
        queue, region = [start], set()
        while queue:
            y, x = queue.pop()
            if (y, x) in seen or not (0 <= y < 50 and 0 <= x < 100) or canvas[y, x] <= 0.5:
                continue
            seen.add((y, x))
            region.add((y, x))
            queue += [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        best = max(best, region, key=len)
    rows, cols = zip(*best, strict=True)
    box = find_boxes(canvas, 0.5, "largest", WHOLE, GREY)[0]
    assert (box.x1, box.y1, box.x2, box.y2) == (
        min(cols),
        min(rows),
        max(cols) + 1,
        max(rows) + 1,
    )


def test_grabcut_finds_the_object_of_which_the_map_covers_a_part() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.normal(60, 8, (100, 200, 3))
    pixels[20:80, 50:150] = rng.normal((200, 60, 60), 8, (60, 100, 3))
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    heat = np.zeros((50, 100), np.float32)
    heat[18:32, 40:60] = 1  # in the middle of the object, 40 x 28 of its 100 x 60 pixels
    view = View(200, 100, 0, 0, 200, 100)
    (plain,) = find_boxes(heat, 0.5, "largest", view, picture)
    (cut,) = find_boxes(heat, 0.5, "grabcut", view, picture)
    assert (plain.x1, plain.y1, plain.x2, plain.y2) == (80, 36, 120, 64)
    corners = np.array([cut.x1, cut.y1, cut.x2, cut.y2])
    assert np.abs(corners - [50, 20, 150, 80]).max() <= 2
    assert find_boxes(heat, 0.5, "grabcut", view, picture) == (cut,)


@pytest.mark.parametrize("heat", [np.zeros((20, 20)), np.ones((20, 20))])
def test_grabcut_of_nothing_and_of_everything(heat: np.ndarray) -> None:
    found = find_boxes(heat.astype(np.float32), 0.5, "grabcut", WHOLE, GREY)
    assert [(b.x1, b.y1, b.x2, b.y2) for b in found] == [(0, 0, 100, 50)] * int(heat.any())
