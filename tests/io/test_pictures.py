"""The files of pictures, against what the raw arrays and the boxes of the same run say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PHOTOS, Cli
from numpy.typing import NDArray
from PIL import Image

from camcli.core.geometry import View
from camcli.io import pictures
from camcli.io.drawing import draw_levels, find_palette
from camcli.io.map_looks import format_range

CAT, CUP = PHOTOS[0], PHOTOS[1]


def explain(cli: Cli, folder: Path, *options: object) -> list[dict[str, Any]]:
    """The results of `camcli explain`, with the paths of the files of the first class."""
    ran = cli("explain", *options, "--output", folder, "--overwrite")
    assert ran.status == 0, ran.err
    return [
        line["explanations"][0]
        | {"paths": {k: folder / v for k, v in line["explanations"][0]["files"].items()}}
        for line in ran.lines
    ]


def read(path: Path) -> NDArray[np.int64]:
    with Image.open(path) as image:
        return np.asarray(image).astype(np.int64)


def read_fused(line: dict[str, Any]) -> NDArray[np.float32]:
    with np.load(line["paths"]["array"]) as arrays:
        return np.asarray(arrays[f"{line['class_index']}/fused"])


def normalize(values: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = (values - values.min()) / (values.max() - values.min())
    return scaled


@pytest.mark.parametrize("threshold", [0.2, 0.55])
def test_a_mask_is_where_the_map_is_above_the_threshold(
    cli: Cli, tmp_path: Path, threshold: float
) -> None:
    options = ("--threshold", threshold, "--boxes", "all", "--save", "mask,array")
    (line,) = explain(cli, tmp_path / "o", CAT, *options)
    raw = Image.fromarray(normalize(read_fused(line)))
    heat = normalize(np.asarray(raw.resize((224, 224), Image.Resampling.BILINEAR)))
    above = heat > np.float32(threshold)
    expected = np.zeros((300, 451), np.int64)
    for row in range(224):
        top, bottom = round(row * 300 / 224), round((row + 1) * 300 / 224)
        for column in np.flatnonzero(above[row]):
            left, right = round(column * 451 / 224), round((column + 1) * 451 / 224)
            expected[top:bottom, left:right] = 255
    mask = read(line["paths"]["mask"])
    assert mask.shape == (300, 451)
    assert np.array_equal(mask, expected)


def test_a_mask_is_held_by_its_box_and_given_as_runs(cli: Cli, tmp_path: Path) -> None:
    (line,) = explain(cli, tmp_path / "o", CUP, "--save", "mask", "--fit", "crop")
    mask = read(line["paths"]["mask"])
    rows, columns = np.nonzero(mask)
    (box,) = line["boxes"]
    assert (box["x1"], box["y1"]) == (columns.min(), rows.min())
    assert (box["x2"], box["y2"]) == (columns.max() + 1, rows.max() + 1)
    assert line["mask"]["size"] == list(mask.shape)
    assert decode(line["mask"]["counts"], mask.shape).tolist() == (mask > 0).tolist()
    (other,) = explain(cli, tmp_path / "o", CUP, "--save", "boxes", "--fit", "crop")
    assert "mask" not in other


def decode(counts: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    runs: list[int] = []
    number = shift = 0
    for code in (ord(c) - 48 for c in counts):
        number |= (code & 31) << shift
        shift += 5
        if not code & 32:
            number -= (1 << shift) if code & 16 else 0
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number = shift = 0
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(shape[::-1]).T


def test_a_map_is_saved_as_grey_levels_at_its_own_size(cli: Cli, tmp_path: Path) -> None:
    (line,) = explain(cli, tmp_path / "o", CAT, "--save", "map,array")
    raw = read_fused(line)
    with Image.open(line["paths"]["map"]) as image:
        assert (image.mode, image.size) == ("L", (7, 7))
        assert float(image.info["minimum"]) == raw.min()
        assert float(image.info["maximum"]) == raw.max()
        assert image.info["status"] == "ok"
    levels = read(line["paths"]["map"])
    exact = (raw.astype(np.float64) - raw.min()) / (raw.max() - raw.min()) * 255
    assert np.abs(levels - exact).max() <= 0.5 + 1e-4


def test_captions_do_not_change_the_picture(cli: Cli, tmp_path: Path) -> None:
    found = {}
    for caption in ("none", "below", "on"):
        options = ("--save", "overlay", "--image-format", "png", "--caption", caption)
        (line,) = explain(cli, tmp_path / "o", CAT, *options)
        found[caption] = read(line["paths"]["overlay"])
    assert found["none"].shape == found["on"].shape == (300, 451, 3)
    assert np.array_equal(found["below"][:300], found["none"])
    changed = (found["on"] != found["none"]).any(axis=2)
    assert changed[:40, :100].any()
    assert not changed[60:].any()


def test_no_picture_option_changes_arrays_or_boxes(cli: Cli, tmp_path: Path) -> None:
    save = ("--save", "overlay,heatmap,grid,boxes,array")
    plain = explain(cli, tmp_path / "plain", CAT, CUP, *save)
    colors = ("--colormap", "jet", "--blend", "constant", "--alpha", "0.5", "--clip", "90")
    marks = ("--contour", "--caption", "on", "--box-color", "red", "--cell", "100")
    options = (*save, *colors, *marks, "--scale", "run")
    styled = explain(cli, tmp_path / "styled", CAT, CUP, *options)
    for one, other in zip(plain, styled, strict=True):
        assert one["boxes"] == other["boxes"]
        for kind in ("array", "boxes"):
            assert one["paths"][kind].read_bytes() == other["paths"][kind].read_bytes()
        for kind in ("overlay", "heatmap", "grid"):
            assert one["paths"][kind].read_bytes() != other["paths"][kind].read_bytes()


def test_a_transparent_map_over_the_photo_is_the_overlay(cli: Cli, tmp_path: Path) -> None:
    options = ("--save", "overlay,transparent", "--caption", "none", "--image-format", "png")
    (line,) = explain(cli, tmp_path / "o", CAT, *options)
    with Image.open(CAT) as photo, Image.open(line["paths"]["transparent"]) as layer:
        assert layer.mode == "RGBA"
        below = photo.convert("RGBA")
        below.alpha_composite(layer)
    difference = np.asarray(below.convert("RGB"), int) - read(line["paths"]["overlay"])
    assert np.abs(difference).max() <= 1


def test_a_cutout_keeps_the_photo_in_the_region(cli: Cli, tmp_path: Path) -> None:
    options = ("--save", "cutout,mask", "--image-format", "png", "--threshold", "0.5")
    (line,) = explain(cli, tmp_path / "o", CAT, *options)
    cutout, mask = read(line["paths"]["cutout"]), read(line["paths"]["mask"]) > 0
    with Image.open(CAT) as image:
        photo = np.asarray(image.convert("RGB")).astype(np.int64)
    kept = (cutout == photo).all(axis=2)
    assert kept[mask].mean() > 0.9
    assert cutout[~mask].mean() < 0.4 * photo[~mask].mean()


def find_peak_level(path: Path) -> int:
    """The index of the color of the pixel with the highest level of a grey heatmap."""
    return int(read(path)[..., 0].max())


def test_the_images_of_a_run_share_a_scale(cli: Cli, tmp_path: Path) -> None:
    options = (CAT, CUP, "--save", "heatmap,array", "--colormap", "gray")
    own = explain(cli, tmp_path / "own", *options)
    shared = explain(cli, tmp_path / "run", *options, "--scale", "run")
    fixed = explain(cli, tmp_path / "fixed", *options, "--scale", "0..100")
    raws = [read_fused(line) for line in own]
    low, high = min(raw.min() for raw in raws), max(raw.max() for raw in raws)
    for raw, one, other, dark in zip(raws, own, shared, fixed, strict=True):
        assert find_peak_level(one["paths"]["heatmap"]) == 255
        expected = 255 * (raw.max() - low) / (high - low)
        # Bicubic interpolation may exceed the values that it goes through.
        assert -1 <= find_peak_level(other["paths"]["heatmap"]) - expected <= 15
        assert find_peak_level(dark["paths"]["heatmap"]) <= 255 * raw.max() / 100 + 1
    assert cli("explain", CAT, "--scale", "3..1").status == 2


def test_a_clipped_map_has_more_pixels_at_its_maximum(cli: Cli, tmp_path: Path) -> None:
    shares = []
    for clip in (100, 90, 60):
        options = ("--save", "heatmap", "--colormap", "gray", "--clip", clip)
        (line,) = explain(cli, tmp_path / "o", CAT, *options)
        shares.append((read(line["paths"]["heatmap"])[..., 0] >= 254).mean())
    assert shares[0] < 0.05 < shares[1] < 0.2 < shares[2] < 0.55


def test_pixel_level_maps_are_grey_and_signed_ones_have_two_colours(
    cli: Cli, tmp_path: Path
) -> None:
    style = ("--save", "overlay", "--caption", "none", "--image-format", "png")
    (line,) = explain(cli, tmp_path / "o", CAT, "--method", "saliency", *style)
    pixels = read(line["paths"]["overlay"])
    assert np.ptp(pixels, axis=2).max() == 0
    assert pixels.min() == 0
    signed = ("--method", "integratedgradients:absolute=false:steps=2")
    (line,) = explain(cli, tmp_path / "o", CAT, *signed, *style)
    pixels = read(line["paths"]["overlay"])
    middle = find_palette("RdBu_r")[127].astype(int)
    assert np.abs(np.median(pixels.reshape(-1, 3), axis=0) - middle).max() < 15
    assert (pixels[..., 0] - pixels[..., 2] > 60).any()
    assert (pixels[..., 2] - pixels[..., 0] > 60).any()
    (line,) = explain(cli, tmp_path / "o", CAT, "--method", "saliency", "--blend", "value", *style)
    with Image.open(CAT) as photo:
        distance = np.abs(read(line["paths"]["overlay"]) - np.asarray(photo.convert("RGB"), int))
    assert np.median(distance) < 30  # the photo is below it


def test_a_signed_map_is_transparent_where_it_is_zero(cli: Cli, tmp_path: Path) -> None:
    method = ("--method", "integratedgradients:absolute=false:steps=2")
    options = ("--save", "transparent,array", "--scale", "-2..1")
    (line,) = explain(cli, tmp_path / "o", CAT, *method, *options, "--alpha", "1")
    raw = Image.fromarray(np.clip(read_fused(line) / 2, -1, 1))
    shown = np.asarray(raw.resize((451, 300), Image.Resampling.BICUBIC)).clip(-1, 1)
    opacity = read(line["paths"]["transparent"])[..., 3]
    assert np.abs(opacity - 255 * np.abs(shown)).max() <= 2


def test_a_map_that_depends_on_no_class_names_none(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []

    def keep_title(picture: Image.Image, title: str, _bar: object) -> Image.Image:
        titles.append(title)
        return picture

    monkeypatch.setattr(pictures, "add_caption", keep_title)
    # One writer thread: the titles come in the order of the methods.
    options = ("--workers", "1", "--save", "overlay")
    explain(cli, tmp_path / "o", CAT, "--method", "gradcam,eigencam,dff", *options)
    assert titles[1:] == [f"{name} (the same for every class)" for name in ("eigencam", "dff")]
    assert titles[0].startswith("Egyptian cat 0.")
    titles.clear()
    explain(cli, tmp_path / "o", CAT, "--clip", "99", "--save", "overlay")
    assert titles[0].endswith(" · gradcam · clipped at p99")


def test_every_format_holds_overlays_and_grids(cli: Cli, tmp_path: Path) -> None:
    for ending, name in (("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP")):
        options = ("--save", "overlay,grid,cutout", "--image-format", ending)
        (line,) = explain(cli, tmp_path / "o", CAT, *options)
        for path in line["paths"].values():
            assert path.suffix == f".{ending}"
            with Image.open(path) as image:
                assert image.format == name
    with Image.open(tmp_path / "o/chelsea.egyptian-cat.gradcam.grid.webp") as image:
        assert image.width > 500


def interpolate_bicubic(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Keys' kernel with a = -0.5 along the first axis; weights beyond the edge are left out."""
    scale = len(values) / count
    out = np.zeros((count, *values.shape[1:]))
    for n in range(count):
        centre = (n + 0.5) * scale
        weights = np.zeros(len(values))
        for k in range(len(values)):
            t = abs(k + 0.5 - centre)
            if t < 1:
                weights[k] = 1.5 * t**3 - 2.5 * t**2 + 1
            elif t < 2:
                weights[k] = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
        out[n] = np.tensordot(weights / weights.sum(), values, axes=1)
    return out


def test_maps_are_drawn_with_bicubic_interpolation() -> None:
    heat = np.random.default_rng(0).random((5, 6)).astype(np.float32)
    drawn = np.asarray(draw_levels(heat, View.from_whole_image(40, 30)), np.float64)
    exact = interpolate_bicubic(heat.astype(np.float64), 30)
    exact = interpolate_bicubic(exact.T, 40).T.clip(0, 1) * 255
    assert np.abs(drawn - exact).max() <= 0.51


def test_values_are_written_short() -> None:
    assert format_range((0.0, 3.2149)) == "0 … 3.21"
    assert format_range((1.5e-44, 7.76)) == "0 … 7.76"
    assert format_range((-0.1132, 2.7)) == "-0.113 … 2.7"


def test_a_run_with_a_shared_scale_is_not_resumed_with_other_images(
    cli: Cli, tmp_path: Path
) -> None:
    plain = ("--scale", "run", "--output", "o", "--resume")
    assert cli("explain", CAT, *plain).status == 0
    ran = cli("explain", CAT, CUP, *plain)
    assert ran.status == 2
    assert "scale was" in ran.err


def test_results_with_masks_are_resumed(cli: Cli, tmp_path: Path) -> None:
    cli("explain", CAT, "--save", "mask", "--output", "o")
    before = (tmp_path / "o/results.jsonl").read_text()
    ran = cli("explain", CAT, CUP, "--save", "mask", "--output", "o", "--resume")
    assert ran.status == 0, ran.err
    assert (tmp_path / "o/results.jsonl").read_text().startswith(before)
    same = cli("explain", CAT, "--save", "mask", "--clip", "99", "--output", "o", "--resume")
    assert same.status == 0, same.err  # a mask has no look
    other = cli("explain", CAT, "--save", "mask", "--threshold", "0.5", "--output", "o", "--resume")
    assert other.status == 2
    assert "threshold was" in other.err
    assert json.loads(before)["explanations"][0]["mask"]["size"] == [300, 451]
