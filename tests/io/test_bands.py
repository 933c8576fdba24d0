"""Bands of files and arrays: exact values reach the network in order; hostile files say why."""

from __future__ import annotations

import importlib.util
import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import gradient_image
from numpy.typing import NDArray
from PIL import Image

from camcli.core.errors import ImageError
from camcli.core.geometry import Float32Array, View
from camcli.core.types import Transform
from camcli.io import arrays
from camcli.io.bands import read_pixels
from camcli.io.images import load_image
from camcli.io.transforms import create_ten_crops, preprocess_crops, preprocess_image

Array = NDArray[Any]
ROWS, COLS = 6, 9
BYTES = np.random.default_rng(0).integers(0, 256, (ROWS, COLS, 5), np.uint8)


def read_input(image: Path | Image.Image | Array, channels: int) -> Float32Array:
    """What a network of the image's size and without normalisation gets: (C,H,W)."""
    planes = read_pixels(image, channels).planes
    cols, rows = planes[0].size
    transform = Transform((rows, cols), mean=(0.0,) * channels, std=(1.0,) * channels)
    return preprocess_image(planes, View.from_whole_image(cols, rows), transform)


def save(tmp_path: Path, values: Array) -> Path:
    np.save(tmp_path / "image.npy", values)
    return tmp_path / "image.npy"


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["uint8", ">u2", "uint16", "float16", "float32", ">f8"])
def test_bands_reach_the_network_in_order(tmp_path: Path, channels: int, kind: str) -> None:
    values = BYTES[..., :channels].astype(kind)
    scale = {"u1": 255, "u2": 65535}.get(np.dtype(kind).str[1:], 1)
    expected = (values.astype(np.float32) / np.float32(scale)).transpose(2, 0, 1)
    for stored in (values, np.asfortranarray(values), values.transpose(2, 0, 1)):
        assert np.array_equal(read_input(save(tmp_path, stored), channels), expected)
        assert np.array_equal(read_input(stored, channels), expected)


def test_fractions_outside_0_and_1_stay_as_they_are() -> None:
    values = np.linspace(-3, 7, ROWS * COLS * 2, dtype=np.float32).reshape(ROWS, COLS, 2)
    assert np.array_equal(read_input(values, 2), values.transpose(2, 0, 1))


def test_each_band_has_its_own_mean_and_std() -> None:
    transform = Transform((ROWS, COLS), mean=(0.1, 0.2), std=(0.5, 0.25))
    planes = read_pixels(BYTES[..., :2], 2).planes
    found = preprocess_image(planes, View.from_whole_image(COLS, ROWS), transform)
    shares = BYTES[..., :2].astype(np.float64) / 255
    expected = (shares - (0.1, 0.2)) / (0.5, 0.25)
    np.testing.assert_allclose(found, expected.transpose(2, 0, 1), atol=1e-6)


def test_where_both_ends_fit_the_last_dimension_has_the_bands() -> None:
    values = np.arange(5 * 4 * 5, dtype=np.uint8).reshape(5, 4, 5)
    assert read_input(values, 5)[2, 3, 1] == np.float32(values[3, 1, 2]) / np.float32(255)


def test_grey_is_the_luma_of_itu_r_601(tmp_path: Path) -> None:
    image = gradient_image(40, 30)
    image.save(tmp_path / "a.png")
    r, g, b = np.asarray(image).astype(np.int64).transpose(2, 0, 1)
    # Pillow's weights in sixteenth-bit fractions, rounded.
    luma = (19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16
    for source in (tmp_path / "a.png", image, np.asarray(image)):
        assert np.array_equal(read_input(source, 1)[0], luma.astype(np.float32) / np.float32(255))
    shares = np.asarray(image, np.float32) / 255
    expected = 0.299 * shares[..., 0] + 0.587 * shares[..., 1] + 0.114 * shares[..., 2]
    np.testing.assert_allclose(read_input(shares, 1)[0], expected, atol=1e-6)


def test_grey_of_16_bits_is_scaled_and_keeps_its_precision(tmp_path: Path) -> None:
    values = np.array([[0, 1, 257], [40000, 40001, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    found = read_input(tmp_path / "a.png", 1)[0]
    np.testing.assert_allclose(found, values / 65535, atol=1e-7)
    assert found[1, 1] > found[1, 0]


def test_grey_bytes_and_masks_of_one_bit(tmp_path: Path) -> None:
    grey = BYTES[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.array_equal(read_input(tmp_path / "a.png", 1)[0] * 255, grey)
    Image.fromarray(grey > 99).save(tmp_path / "b.png")
    assert np.array_equal(read_input(tmp_path / "b.png", 1)[0], grey > 99)


def test_three_channels_read_an_array_as_they_read_a_picture(tmp_path: Path) -> None:
    image = gradient_image(40, 30)
    image.save(tmp_path / "a.png")
    path = save(tmp_path, np.asarray(image))
    assert np.array_equal(read_input(path, 3), read_input(tmp_path / "a.png", 3))
    assert read_pixels(path, 3).picture.tobytes() == image.tobytes()
    grey = save(tmp_path, BYTES[..., 0])
    assert np.array_equal(read_input(grey, 3), np.stack([BYTES[..., 0]] * 3) / np.float32(255))


@pytest.mark.parametrize(
    ("mode", "channels", "name"),
    [("LA", 2, "a.png"), ("RGBA", 4, "a.png"), ("CMYK", 4, "a.tif"), ("RGBA", 4, "a.tif")],
)
def test_files_with_two_or_four_bands(tmp_path: Path, mode: str, channels: int, name: str) -> None:
    image = Image.merge(mode, [Image.fromarray(BYTES[..., n].copy()) for n in range(channels)])
    image.save(tmp_path / name)
    expected = BYTES[..., :channels].transpose(2, 0, 1) / np.float32(255)
    assert np.array_equal(read_input(tmp_path / name, channels), expected)


@pytest.mark.parametrize(
    ("shape", "channels", "count"),
    [((6, 9, 3), 4, "3 bands"), ((7, 60, 90), 5, "7 bands"), ((6, 9), 2, "1 band"),
     ((6, 9, 5), 3, "5 bands"), ((6, 9, 2), 1, "2 bands")],
)  # fmt: skip
def test_another_number_of_bands_is_named(
    shape: tuple[int, ...], channels: int, count: str
) -> None:
    with pytest.raises(ImageError, match=f"^has {count}, the network takes {channels}"):
        read_pixels(np.zeros(shape, np.uint8), channels)


def test_a_picture_with_too_few_bands_is_named(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.tif"):
        gradient_image(8, 8).save(tmp_path / name)
        with pytest.raises(ImageError, match=r"^has 3 bands, the network takes 4"):
            read_pixels(tmp_path / name, 4)


def test_the_picture_shows_the_chosen_bands() -> None:
    def shown(*numbers: int) -> Array:
        return np.asarray(read_pixels(BYTES, 5, numbers).picture)

    assert np.array_equal(shown(), BYTES[..., :3])
    assert np.array_equal(shown(5, 1, 2), BYTES[..., [4, 0, 1]])
    assert np.array_equal(shown(4), np.stack([BYTES[..., 3]] * 3, axis=2))
    two = np.asarray(read_pixels(BYTES[..., :2], 2).picture)
    assert np.array_equal(two, np.stack([BYTES[..., 0]] * 3, axis=2))


def test_values_that_are_no_bytes_are_stretched_for_the_picture_only() -> None:
    values = np.arange(101, dtype=np.float32).reshape(1, 101)  # its percentiles are its values
    picture = np.asarray(read_pixels(values * 40, 1).picture)[0, :, 0]
    assert picture[:3].tolist() == [0, 0, 0]
    assert picture[98:].tolist() == [255, 255, 255]
    assert picture[50] == round(255 * 48 / 96)
    constant = read_pixels(np.full((4, 4), 0.7), 1).picture
    assert np.asarray(constant).max() == 0


def test_colours_stay_on_the_picture_of_a_grey_network(tmp_path: Path) -> None:
    gradient_image(40, 30).save(tmp_path / "a.png")
    picture = read_pixels(tmp_path / "a.png", 1).picture
    assert picture.tobytes() == load_image(tmp_path / "a.png").tobytes()


def test_crops_are_cut_from_all_bands() -> None:
    values = np.random.default_rng(1).random((256, 256, 5), np.float32)
    transform = Transform((224, 224), mean=(0.0,) * 5, std=(1.0,) * 5)
    crops = create_ten_crops((224, 224))
    found = preprocess_crops(read_pixels(values, 5).planes, crops, transform)
    assert found.shape == (10, 5, 224, 224)
    assert np.array_equal(found[3], values[32:, 32:].transpose(2, 0, 1))
    assert np.array_equal(found[8], values[32:, 32:].transpose(2, 0, 1)[..., ::-1])


def test_padding_is_zero_in_all_bands() -> None:
    transform = Transform((8, 8), mean=(0.5,) * 5, std=(1.0,) * 5)
    planes = read_pixels(np.ones((4, 8, 5), np.float32), 5).planes
    found = preprocess_image(planes, View(8, 4, 0, -2, 8, 6), transform)
    assert np.array_equal(found[:, 2:6], np.full((5, 4, 8), 0.5))
    assert not found[:, :2].any()
    assert not found[:, 6:].any()


def npy_bytes(header: str, content: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def pickled() -> bytes:
    buffer = BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


HUGE = "{'descr': '|u1', 'fortran_order': False, 'shape': (100000, 100000, 4)}"
LONG = "{'descr': '|u1', 'fortran_order': False, 'shape': (16000, 4000, 4)}"
HOSTILE = {
    "nothing": (b"", "empty"),
    "no array": (b"GIF89a" * 9, "magic string"),
    "code": (pickled(), "values of type object have no scale"),
    "a pickle": (pickle.dumps([1] * 50), "magic string"),
    "a large shape": (npy_bytes(HUGE), "268,435,456 values"),
    "fewer values": (npy_bytes(LONG, b"1" * 99), "cut short"),
    "no values": (npy_bytes(HUGE.replace("100000", "0")), "not an image"),
    "a negative side": (npy_bytes(HUGE.replace("100000", "-1")), "not an image"),
    "deep brackets": (npy_bytes("(" * 5000), "."),
    "a long header": (npy_bytes(" " * 20000 + HUGE), "."),
    "a broken header": (npy_bytes(HUGE[:-9]), "."),
    "fields": (npy_bytes(HUGE.replace("'|u1'", "[('a', '|u1')]")), "values of type"),
    "strings": (npy_bytes(HUGE.replace("|u1", "<U9")), "values of type"),
    "a new version": (b"\x93NUMPY\x03\x00" + b"\0" * 99, "version"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_array_fails_in_one_line(tmp_path: Path, name: str) -> None:
    content, message = HOSTILE[name]
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        read_pixels(tmp_path / "a.npy", 4)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(9, np.uint8), "not an image"),
        (np.zeros((2, 3, 4, 5), np.uint8), "not an image"),
        (np.zeros((6, 9), np.int64), "save uint8, uint16 or float32"),
        (np.zeros((6, 9), np.complex64), "save uint8, uint16 or float32"),
        (np.full((6, 9), np.nan), "NaN or infinity"),
        (np.full((6, 9), 1e300), "NaN or infinity"),
    ],
)
def test_arrays_that_are_no_images(tmp_path: Path, values: Array, message: str) -> None:
    for source in (values, save(tmp_path, values)):
        with pytest.raises(ImageError, match=message):
            read_pixels(source, 1)


def test_without_tifffile_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "find_spec", lambda _name: None)
    Image.fromarray(BYTES[..., 0].astype(np.uint16)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"pip install 'camcli\[tiff\]'"):
        read_pixels(tmp_path / "a.tif", 5)


@pytest.mark.skipif(not importlib.util.find_spec("tifffile"), reason="needs tifffile")
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiffs_of_five_bands(tmp_path: Path, kind: str, planar: str) -> None:
    import tifffile

    values = BYTES.astype(kind)
    stored = values if planar == "contig" else values.transpose(2, 0, 1)
    tifffile.imwrite(
        tmp_path / "a.tif", stored, planarconfig=planar, photometric="minisblack",
        compression="zlib",
    )  # fmt: skip
    assert np.array_equal(read_input(tmp_path / "a.tif", 5), read_input(values, 5))
    with pytest.raises(ImageError, match="has 5 bands, the network takes 4"):
        read_pixels(tmp_path / "a.tif", 4)


@pytest.mark.skipif(not importlib.util.find_spec("tifffile"), reason="needs tifffile")
def test_broken_tiffs_fail_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import tifffile

    path = tmp_path / "a.tif"
    tifffile.imwrite(path, BYTES, photometric="minisblack", planarconfig="contig")
    whole = path.read_bytes()
    for length in (4, 8, 20, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ImageError) as caught:
            read_pixels(path, 5)
        assert "\n" not in str(caught.value)
    assert capsys.readouterr().err == ""
