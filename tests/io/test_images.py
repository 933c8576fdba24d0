"""Decoding of whatever comes, and the geometry from the original to the input and back."""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SAMPLES, gradient_image
from PIL import Image
from timm.data.transforms_factory import create_transform

from camcli.core.errors import ImageError
from camcli.core.types import DEFAULT_MAX_PIXELS, MAX_READABLE_PIXELS, FitMode, Transform
from camcli.io import images
from camcli.io.images import decode_image, load_image, read_first_frame
from camcli.io.transforms import compute_view, preprocess_image

PLAIN = Transform((32, 48), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def saved(image: Image.Image, tmp_path: Path, name: str, **options: Any) -> Path:
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_sixteen_bits_are_scaled_and_not_saturated(tmp_path: Path) -> None:
    values = np.array([[0, 257 * 10, 257 * 200, 65535]], np.uint16)
    decoded = load_image(saved(Image.fromarray(values), tmp_path, "deep.png"))
    assert np.asarray(decoded)[0, :, 0].tolist() == [0, 10, 200, 255]


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_floats_up_to_one_or_up_to_255(tmp_path: Path, scale: float) -> None:
    values = np.array([[0, 0.2, 1.0]], np.float32) * np.float32(scale)
    decoded = load_image(saved(Image.fromarray(values), tmp_path, "float.tiff"))
    assert np.asarray(decoded)[0, :, 0].tolist() == [0, 51, 255]


def test_values_without_an_agreed_scale_are_refused(tmp_path: Path) -> None:
    values = np.array([[-1.0, 5.0]], np.float32)
    with pytest.raises(ImageError, match="no standard scale"):
        load_image(saved(Image.fromarray(values), tmp_path, "odd.tiff"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_shows_white_and_never_the_hidden_colour(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0)).convert("LA" if mode == "LA" else "RGBA")
    options = {}
    if mode == "P":
        image = Image.new("P", (4, 4), 0)
        image.putpalette([255, 0, 0])
        options = {"transparency": 0}
    decoded = load_image(saved(image, tmp_path, "clear.png", **options))
    assert np.asarray(decoded).min() == 255


@pytest.mark.parametrize("mode", ["CMYK", "L", "1", "RGB"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    name = "a.jpg" if mode == "CMYK" else "a.png"
    decoded = load_image(saved(Image.new("RGB", (5, 3), "white").convert(mode), tmp_path, name))
    assert decoded.mode == "RGB"
    assert np.asarray(decoded).min() > 250


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = gradient_image(40, 20)
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that undoes each
    stored = upright.transpose(Image.Transpose(back[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = load_image(saved(stored, tmp_path, "turned.png", exif=exif))
    assert decoded.size == (40, 20)
    assert np.array_equal(np.asarray(decoded), np.asarray(upright))


@pytest.mark.parametrize("tag", [0x0100, 0x010F, 0x011A, 0xA005])
def test_broken_exif_does_not_cost_the_pixels(tmp_path: Path, tag: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = bytearray(exif.tobytes())
    path = saved(gradient_image(40, 20), tmp_path, "odd.jpg", exif=bytes(raw))
    content = path.read_bytes()
    # Another entry of the directory turns into a tag of a type that it cannot have.
    entry = b"\x12\x01" if b"II*" in content else b"\x01\x12"
    wrong = tag.to_bytes(2, "little" if entry == b"\x12\x01" else "big")
    path.write_bytes(content.replace(entry, wrong, 1))
    assert load_image(path).size == (40, 20)


@pytest.mark.parametrize("error", [RuntimeError("codec"), struct.error("tag"), AttributeError("x")])
def test_whatever_a_decoder_raises_is_the_images_own_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = saved(gradient_image(4, 4), tmp_path, "a.png")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(ImageError, match=str(error)):
        load_image(path)


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    path = saved(frames[0], tmp_path, "a.gif", save_all=True, append_images=frames[1:])
    assert np.asarray(load_image(path))[0, 0].tolist() == [254, 0, 0] or (
        np.asarray(load_image(path))[0, 0].tolist() == [255, 0, 0]
    )


@pytest.mark.parametrize("suffix", ["gif", "webp", "tiff", "png"])
def test_files_with_more_frames_or_pages_are_told(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    moving = saved(frames[0], tmp_path, f"m.{suffix}", save_all=True, append_images=frames[1:])
    decoded = read_first_frame(moving, decode_image)
    assert decoded.has_more_frames
    red, green, blue = np.asarray(decoded.content)[4, 4].tolist()
    assert red > 240  # the first one
    assert max(green, blue) < 15
    assert not read_first_frame(
        saved(frames[0], tmp_path, f"s.{suffix}"), decode_image
    ).has_more_frames


def test_a_limit_of_pixels_is_checked_before_any_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(Image.new("L", (30, 20)), tmp_path, "a.png")
    assert load_image(path, max_pixels=600).size == (30, 20)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"600 pixels \(30 x 20\), more than 599; .*--max-"):
        load_image(path, max_pixels=599)


def test_a_camera_of_100_megapixels_is_within_the_limit_and_pillow_above_it() -> None:
    assert 11648 * 8736 <= DEFAULT_MAX_PIXELS < MAX_READABLE_PIXELS
    assert Image.MAX_IMAGE_PIXELS
    assert MAX_READABLE_PIXELS == 2 * Image.MAX_IMAGE_PIXELS


def damaged_tiff(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
    path = saved(Image.fromarray(noise), tmp_path, "d.tiff", compression="tiff_lzw")
    raw = bytearray(path.read_bytes())
    for place in range(200, 3000, 7):
        raw[place] ^= 0x5A
    path.write_bytes(raw)
    return path


def test_words_of_libtiff_go_into_the_error_and_not_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    damaged, whole = damaged_tiff(tmp_path), saved(Image.new("L", (4, 4)), tmp_path, "w.tiff")

    def read(number: int) -> str:
        try:
            load_image(damaged if number % 2 else whole)
        except ImageError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(4) as pool:
        said = list(pool.map(read, range(40)))
    assert set(said[::2]) == {""}
    assert set(said[1::2]) == {"decoder error -2 (Using code not yet in table)"}
    assert capfd.readouterr().err == ""
    with Image.open(damaged) as image, pytest.raises(OSError, match="decoder"):
        image.load()  # not camcli's own reading: libtiff speaks as before
    assert "Using code not yet in table" in capfd.readouterr().err


def test_reading_in_threads_leaves_the_filters_of_warnings_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(Image.new("L", (4, 4)), tmp_path, "a.png")
    together = threading.Barrier(4)

    def warn(image: Image.Image) -> Image.Image:
        together.wait()
        warnings.warn_explicit("odd", UserWarning, "png.py", 1, module="PIL.PngImagePlugin")
        return image

    before = list(warnings.filters)
    monkeypatch.setattr(images, "_apply_exif_orientation", warn)
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(load_image, [path] * 8))) == 8
    assert list(warnings.filters) == before


def broken(kind: str) -> bytes:
    whole = (SAMPLES / "chelsea.jpg").read_bytes()
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    return {
        "text": b"not a picture\n",
        "empty": b"",
        "truncated jpeg": whole[: len(whole) // 2],
        "truncated png": buffer.getvalue()[:-40],
        "header only": whole[:4],
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    }[kind]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("text", "not an image"),
        ("empty", "empty"),
        ("truncated jpeg", "truncated"),
        ("truncated png", "."),
        ("header only", "."),
        ("postscript", "not an image"),  # Pillow would start Ghostscript for it
    ],
)
def test_what_is_no_image_says_so(tmp_path: Path, kind: str, says: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(broken(kind))
    with pytest.raises(ImageError, match=says):
        load_image(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="not a regular file"):
        load_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("size", [(1, 1), (2000, 3), (3, 2000), (100, 80), (33, 57)])
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_every_size_fits(size: tuple[int, int], fit: FitMode) -> None:
    view = compute_view(*size, PLAIN, fit)
    pixels = preprocess_image(gradient_image(*size), view, PLAIN)
    assert pixels.shape == (3, 32, 48)
    assert np.isfinite(pixels).all()
    left, top, right, bottom = view.visible_rectangle
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]


@pytest.mark.parametrize("size", [(451, 300), (300, 451), (64, 64), (641, 427)])
def test_crop_is_timms_evaluation_transform(size: tuple[int, int]) -> None:
    transform = Transform((224, 224), crop_pct=0.875, interpolation="bicubic")
    image = Image.open(SAMPLES / "coffee.jpg").resize(size)
    ours = preprocess_image(image, compute_view(*size, transform, "crop"), transform)
    theirs = create_transform((3, 224, 224), interpolation="bicubic", crop_pct=0.875)(image)
    # Two roundings to 8 bits there, one here: half a grey level on average.
    assert np.abs(ours - theirs.numpy()).mean() < 0.01


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_the_view_says_where_each_input_pixel_comes_from(fit: FitMode) -> None:
    width, height = 300, 200
    view = compute_view(width, height, PLAIN, fit)
    pixels = preprocess_image(gradient_image(width, height), view, PLAIN)
    x0, y0, x1, y1 = view.compute_input_window(32, 48)
    row, col = (y0 + y1) // 2, (x0 + x1) // 2
    x = view.left + (col + 0.5) / 48 * (view.right - view.left)
    y = view.top + (row + 0.5) / 32 * (view.bottom - view.top)
    assert pixels[0, row, col] * (width - 1) == pytest.approx(x - 0.5, abs=1.5)
    assert pixels[1, row, col] * (height - 1) == pytest.approx(y - 0.5, abs=1.5)


def test_padding_is_the_mean_colour_and_outside_the_window() -> None:
    view = compute_view(100, 100, PLAIN, "pad")
    pixels = preprocess_image(Image.new("RGB", (100, 100), "white"), view, PLAIN)
    x0, _, x1, _ = view.compute_input_window(32, 48)
    assert (x0, x1) == (8, 40)
    assert (pixels[:, :, x0:x1] == 1).all()
    assert not pixels[:, :, :x0].any()
