"""`import camcli`: every kind of image, the results, and the errors of the Python interface."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PHOTOS, SAMPLES, Cli, small
from PIL import Image
from torch import nn

import camcli

CAT = SAMPLES / "chelsea.jpg"


def test_the_import_is_light() -> None:
    program = (
        "import sys, camcli; dir(camcli); camcli.UsageError; "
        "print({'torch', 'numpy', 'timm', 'PIL', 'typer', 'rich', 'matplotlib'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout == "set()\n", ran.stderr


def test_every_exported_name_is_there() -> None:
    assert {"load", "wrap", "explain", "compare", "evaluate_localization"} <= {*camcli.__all__}
    for name in camcli.__all__:
        assert getattr(camcli, name) is not None
    assert {*camcli.__all__} <= {*dir(camcli)}
    with pytest.raises(AttributeError, match="no attribute 'explian'"):
        camcli.__getattr__("explian")


def test_the_methods_are_listed_though_a_package_has_that_name() -> None:
    import camcli.methods.registry

    assert camcli.methods()["gradcam"].input_names == ("activations", "gradients")  # type: ignore[operator]  # a package that can be called
    assert list(camcli.methods()) == list(camcli.methods.registry.METHODS)  # type: ignore[operator]  # as above


def test_the_maps_are_those_of_the_command_line(cli: Cli, tmp_path: Path) -> None:
    options = ("--method", "layercam", "--layers", "stage3..5", "--save", "array,boxes")
    ran = cli("explain", CAT, *options)
    (line,) = ran.lines
    model = camcli.load()
    (result,) = camcli.explain(model, CAT, method="layercam", layers="stage3..5")
    # A run folds batch norms into convolutions, and so rounds in other places.
    with np.load(tmp_path / "camcli-out" / line["explanations"][0]["files"]["array"]) as arrays:
        np.testing.assert_allclose(result.raw, arrays["285/fused"], rtol=1e-3, atol=1e-5)
        for layer, values in result.layer_maps.items():
            expected = arrays[f"285/{layer}"]
            assert np.abs(values - expected).max() <= 1e-3 * np.abs(expected).max()
    said = result.to_dict()
    assert said["boxes"] == line["explanations"][0]["boxes"]
    assert said["layers"] == line["layers"]
    assert said["map_status"] == result.status == "ok"


def pixels() -> np.ndarray[Any, Any]:
    with Image.open(CAT) as image:
        return np.asarray(image.convert("RGB"))


IMAGES: dict[str, Callable[[], Any]] = {
    "text": lambda: str(CAT),
    "path": lambda: CAT,
    "PIL": lambda: Image.fromarray(pixels()),
    "bytes": pixels,
    "fractions": lambda: pixels().astype(np.float64) / 255,
    "tensor": lambda: torch.from_numpy(pixels().copy()).permute(2, 0, 1),
    "tensor of fractions": lambda: torch.from_numpy(pixels().copy()).permute(2, 0, 1) / 255,
}


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_may_be_of_any_kind(kind: str) -> None:
    model = small("test_efficientnet")
    (expected,) = camcli.explain(model, CAT)
    (result,) = camcli.explain(model, IMAGES[kind]())
    assert isinstance(result, camcli.Explanation)
    np.testing.assert_array_equal(result.raw, expected.raw)
    assert result.boxes == expected.boxes
    assert result.image.size == (451, 300)
    assert result.heatmap.shape == (300, 451)
    assert result.heatmap.dtype == np.float32
    assert 0 <= result.heatmap.min() < result.heatmap.max() <= 1


def test_a_pil_image_is_treated_as_its_file(tmp_path: Path) -> None:
    model = small("test_efficientnet")
    turned = Image.fromarray(pixels())
    turned.getexif()[0x0112] = 6  # rotated
    clear = Image.fromarray(pixels()).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    deep = Image.fromarray(pixels()[:, :, 0].astype(np.uint16) * 257)
    for image, name in ((turned, "turned.jpg"), (clear, "clear.png"), (deep, "deep.png")):
        image.save(tmp_path / name, exif=image.getexif())
        with Image.open(tmp_path / name) as opened:
            (result,) = camcli.explain(model, opened)
        (expected,) = camcli.explain(model, tmp_path / name)
        np.testing.assert_array_equal(result.raw, expected.raw)
        assert result.image.size == expected.image.size
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "turned.jpg").read_bytes()[:3000])
    with Image.open(tmp_path / "cut.jpg") as cut, pytest.raises(camcli.ImageError):
        camcli.explain(model, cut)


MODES: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


@pytest.mark.parametrize("mode", MODES)
def test_the_callers_gradient_mode_does_not_matter(mode: str) -> None:
    methods = ["gradcam", "fullgrad", "saliency"]
    expected = camcli.explain(small("test_resnet"), CAT, methods)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    with MODES[mode]():
        found = camcli.explain(small("test_resnet"), CAT, methods)
        wrapped = camcli.wrap(network, size=32)
        assert not torch.is_grad_enabled() or torch.is_inference_mode_enabled()
        assert camcli.compare(wrapped, CAT, ["gradcam"]).explanations[0].status == "ok"
    assert camcli.explain(wrapped, CAT, "gradcam")[0].status == "ok"
    for one, other in zip(found, expected, strict=True):
        assert one.status == other.status == "ok"
        np.testing.assert_array_equal(one.raw, other.raw)


def test_a_compiled_network_is_explained_as_the_plain_one() -> None:
    plain = small("test_resnet").network
    size = small("test_resnet").input_size
    methods = ["gradcam", "fullgrad", "guidedbackprop"]
    expected = camcli.explain(camcli.wrap(plain, size=size), CAT, methods)
    compiled = torch.compile(plain, backend="eager")
    found = camcli.explain(camcli.wrap(compiled, size=size), CAT, methods)  # type: ignore[arg-type]  # a module, too
    for one, other in zip(found, expected, strict=True):
        assert one.layers == other.layers
        np.testing.assert_array_equal(one.raw, other.raw)


def test_a_bfloat16_tensor_and_a_name_like_a_pattern_are_images(tmp_path: Path) -> None:
    model = small("test_efficientnet")
    assert camcli.explain(model, torch.rand(3, 20, 20).bfloat16())[0].status == "ok"
    with Image.open(CAT) as image:
        image.save(tmp_path / "cat[1].jpg")
    assert isinstance(camcli.explain(model, tmp_path / "cat[1].jpg"), list)


def test_gray_values_are_an_image() -> None:
    model = small("test_efficientnet")
    for values in (pixels()[:, :, 0], pixels()[:, :, :1], torch.rand(1, 40, 60)):
        (result,) = camcli.explain(model, values)
        assert result.status == "ok"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (torch.randn(3, 32, 32), "before it is normalized"),
        (np.full((8, 8, 3), 300), "0 to 255"),
        (np.full((8, 8, 3), np.nan), "these values"),
        (np.zeros((8, 8, 4)), "not an image"),
        (np.zeros(8), "not an image"),
        (np.array([["a"]]), "not an image"),
        (3, "a int is not an image"),
        (Image.new("RGB", (0, 5)), "no pixels"),
        (BytesIO(b"x"), "a BytesIO is not an image"),
        (torch.zeros(3, 8, 8, device="meta"), "is not an image"),
        ("missing.jpg", "no such file"),
    ],
)
def test_what_is_no_image_is_refused(values: Any, says: str) -> None:
    with pytest.raises(camcli.ImageError, match=says):
        camcli.explain(small("test_efficientnet"), values)


def test_many_images_come_one_by_one_and_equal_single_ones() -> None:
    model = small("test_efficientnet")
    singles = [camcli.explain(model, path)[0] for path in PHOTOS]
    for many in (PHOTOS, SAMPLES, f"{SAMPLES}/*.jpg", iter(PHOTOS)):
        found = camcli.explain(model, many, batch_size=3)
        assert not isinstance(found, list)
        for result, single in zip(found, singles, strict=True):
            assert Path(result.name).name == Path(single.name).name
            np.testing.assert_allclose(result.raw, single.raw, rtol=1e-3, atol=1e-5)
    values = torch.rand(2, 3, 40, 50)
    assert [r.name for r in camcli.explain(model, values)] == ["image 0", "image 1"]


def test_a_generator_reads_only_a_little_ahead() -> None:
    taken = []

    def images() -> Any:
        for number in range(1000):
            taken.append(number)
            yield np.full((20, 20, 3), number % 256, np.uint8)

    found = camcli.explain(small("test_efficientnet"), images(), batch_size=4)
    assert len(list(islice(found, 4))) == 4
    assert len(taken) < 20
    found.close()


def test_methods_and_targets_multiply() -> None:
    model = small("test_efficientnet")
    methods = ["gradcam", "rise:masks=20"]
    results = camcli.explain(model, CAT, methods, target="top:2", options={"keep": 0.6})
    assert [r.method for r in results] == ["gradcam", "gradcam", methods[1], methods[1]]
    assert results[0].class_index != results[1].class_index
    assert results[0].score >= results[1].score
    assert camcli.explain(model, CAT, target=3)[0].class_index == 3


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"method": "gradcan"}, camcli.UsageError, "did you mean gradcam"),
        ({"method": "rollout"}, camcli.MethodError, "rollout"),
        ({"layers": "stage9"}, camcli.LayerError, "stage9"),
        ({"block": 1.5}, camcli.UsageError, "block=1.5: write 11"),
        ({"block": "one"}, camcli.UsageError, "write a number such as 11"),
        ({"target": "unicorn"}, camcli.UsageError, "unicorn"),
        ({"fusion": "sum"}, camcli.UsageError, "choose from none, max, mean, product"),
        ({"fit": "stretch"}, camcli.UsageError, "choose from squash"),
        ({"boxes": "some"}, camcli.UsageError, "choose from largest"),
        ({"smooth": "blur"}, camcli.UsageError, "blur"),
        ({"threshold": 2}, camcli.UsageError, "fraction"),
        ({"batch_size": 0}, camcli.UsageError, "1 or more"),
        ({"batch_size": 2.5}, camcli.UsageError, "1 or more"),
        ({"layers": [5]}, camcli.UsageError, "layers=5: write 'stage1..5'"),
        ({"on_error": "ignore"}, camcli.UsageError, "choose from stop, continue"),
        ({"method": "rise", "options": {"mask": 3}}, camcli.UsageError, "masks"),
        ({"method": "rise", "options": {"masks": "many"}}, camcli.UsageError, "masks=many"),
    ],
)
def test_wrong_arguments_are_refused_at_once(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        camcli.explain(small("test_efficientnet"), PHOTOS, **options)


def test_an_unreadable_image_stops_or_takes_its_place(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a picture")
    model = small("test_efficientnet")
    with pytest.raises(camcli.ImageError, match=r"broken\.jpg"):
        camcli.explain(model, broken)
    images: list[Any] = [
        PHOTOS[0],
        broken,
        tmp_path / "missing.jpg",
        torch.randn(3, 8, 8),
        PHOTOS[1],
    ]
    with pytest.raises(camcli.ImageError, match=r"it has \d+ pixels .*, more than 1000;"):
        camcli.explain(model, PHOTOS[0], max_pixels=1000)
    found = list(camcli.explain(model, images, on_error="continue"))
    kinds = [type(item).__name__ for item in found]
    assert kinds == ["Explanation", "Failure", "Failure", "Failure", "Explanation"]
    assert "missing.jpg" in str(found[2])
    with pytest.raises(camcli.ImageError, match=r"broken\.jpg"):
        list(camcli.explain(model, images))


def test_pictures_of_a_result(tmp_path: Path) -> None:
    (result,) = camcli.explain(small("test_efficientnet"), CAT, "layercam", layers="stage1..3")
    assert result.overlay().size == result.image.size == (451, 300)
    assert np.any(np.asarray(result.overlay(boxes=True)) != np.asarray(result.overlay()))
    assert result.grid(colormap="viridis").width > 451
    result.save(tmp_path / "overlay.png", alpha=1.0)
    with Image.open(tmp_path / "overlay.png") as saved:
        assert saved.size == (451, 300)
    with Image.open(BytesIO(result._repr_png_())) as shown:
        assert shown.format == "PNG"
    assert repr(result).startswith(f"Explanation('{result.name}', layercam,")


def test_a_blank_map_is_never_zeros() -> None:
    first = nn.Conv2d(3, 4, 3)
    network = nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    nn.init.zeros_(first.weight)
    nn.init.ones_(first.bias if first.bias is not None else first.weight)
    (result,) = camcli.explain(camcli.wrap(network, size=16), CAT, layers="1")
    assert result.status == "constant"
    assert np.isnan(result.heatmap).all()
    assert result.boxes == ()


def test_load_and_wrap_take_names_or_lists(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    for labels in (["cat", "dog"], tmp_path / "names.txt"):
        model = camcli.wrap(network, size=(24, 32), labels=labels)
        (result,) = camcli.explain(model, CAT, target="dog")
        assert (result.class_name, result.class_index) == ("dog", 1)
        assert model.input_size == (24, 32)
    with pytest.raises(camcli.LabelsError, match="a list of 3; the model has 2 classes"):
        camcli.wrap(network, size=32, labels=["a", "b", "c"])
    with pytest.raises(camcli.MethodError, match="has no classes"):
        camcli.explain(camcli.wrap(nn.Conv2d(3, 4, 3), size=32), CAT, "gradcam")
    assert camcli.load(size=96, head="sigmoid").input_size == (96, 96)


def test_a_comparison_has_maps_times_and_correlations() -> None:
    model = small("test_efficientnet")
    found = camcli.compare(model, CAT, ["gradcam", "hirescam", "eigencam"])
    assert found.methods == ("gradcam", "hirescam", "eigencam")
    assert found.spearman.shape == (3, 3)
    np.testing.assert_allclose(np.diag(found.spearman), 1)
    np.testing.assert_array_equal(found.spearman, found.spearman.T)
    assert len(found.seconds) == len(found.explanations) == 3
    assert found.picture().width > 4 * 260
    assert found._repr_jpeg_()[:2] == b"\xff\xd8"
    with pytest.raises(camcli.MethodError, match="rollout"):
        camcli.compare(model, CAT, ["gradcam", "rollout"])
    with pytest.raises(camcli.UsageError, match="one image"):
        camcli.compare(model, SAMPLES)


def test_a_comparison_of_all_leaves_out_what_does_not_apply() -> None:
    found = camcli.compare(small("test_efficientnet"), CAT)
    assert "gradcam" in found.methods
    assert "rollout" in found.left_out
    assert not {"rise", "scorecam"} & {*found.methods}


def test_several_layers_and_blocks_are_explanations_of_their_own() -> None:
    model = small("test_vit")
    found = camcli.explain(model, CAT, "eigencam", layers=["blocks.1", "-2"], block=[0, "2..3"])
    assert [e.layers for e in found] == [
        *(("blocks.1",), ("blocks.4.norm1",), ("blocks.0.norm1",)),
        ("blocks.2.norm1", "blocks.3.norm1"),
    ]
    (rolled,) = camcli.explain(model, CAT, "rollout", block="2..3")
    assert rolled.layers == ("blocks.2", "blocks.3")
    with pytest.raises(camcli.UsageError, match="one map of each method"):
        camcli.compare(model, CAT, "eigencam", block=[0, 1])
    with pytest.raises(camcli.UsageError, match="one map of each method"):
        camcli.compare(model, CAT, "eigencam", block="0..1", fusion="none")
