"""Ten crops of an image, their maps put back where they were cut."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from conftest import SAMPLES, Cli, small
from PIL import Image

from camcli.core.geometry import Crops
from camcli.core.maps import merge_crop_maps
from camcli.core.types import ImageSource, Result
from camcli.engine import targets
from camcli.engine.explain_batch import ExplainOptions, explain_batch
from camcli.engine.plan import plan_requests
from camcli.io import transforms
from camcli.methods.registry import find_method
from camcli.runs import pipeline
from camcli.runs.run_config import RunConfig


def given(classes: torch.Tensor, _logits: torch.Tensor) -> torch.Tensor:
    return classes


def best(logits: torch.Tensor) -> torch.Tensor:
    return logits.topk(1).indices


def test_crops_are_the_corners_the_middle_and_their_mirrors() -> None:
    crops = transforms.create_ten_crops((224, 224))
    assert crops.canvas_size == (256, 256)
    places = [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    assert crops.corners == tuple((y, x, flip) for flip in (False, True) for y, x in places)


def test_a_map_lies_where_its_crop_was_cut() -> None:
    crops = Crops((5, 6), ((1, 2, False), (0, 0, True)))
    maps = torch.arange(24.0).reshape(2, 3, 4)
    whole = merge_crop_maps(maps, crops, (3, 4), mean=False)
    expected = np.zeros((5, 6))
    expected[1:4, 2:6] += maps[0].numpy()
    expected[0:3, 0:4] += maps[1].numpy()[:, ::-1]
    assert np.allclose(whole[0], expected)
    times = np.zeros((5, 6))
    times[1:4, 2:6] += 1
    times[0:3, 0:4] += 1
    averaged = merge_crop_maps(maps, crops, (3, 4), mean=True)
    assert np.allclose(averaged[0], expected / np.maximum(times, 1))


@pytest.mark.parametrize("method", ["gradcam", "layercam", "cam"])
def test_ten_crops_are_ten_explanations_added_up(method: str) -> None:
    model = small("test_resnet", 96, 96)
    requests = plan_requests(model, [find_method(method)])
    crops = transforms.create_ten_crops(model.input_size)
    pictures = [Image.open(SAMPLES / name) for name in ("chelsea.jpg", "coffee.jpg")]
    inputs = [
        torch.from_numpy(transforms.preprocess_crops(p, crops, model.transform)) for p in pictures
    ]
    found = explain_batch(model, torch.cat(inputs), requests, best, ExplainOptions(crops))[0][0]
    for b, cut in enumerate(inputs):
        with torch.no_grad():
            wanted = model.network(cut).mean(dim=0).argmax()
        assert found.target_scores.class_indices[b] == wanted
        assert found.target_scores.ranks[b] == 0
        whole = np.zeros(crops.canvas_size)
        for one, (y, x, mirrored) in zip(cut, crops.corners, strict=True):
            target = wanted.reshape(1, 1)
            alone = explain_batch(model, one[None], requests, partial(given, target))[0][0]
            large = torch.nn.functional.interpolate(
                alone.fused.values[None], (96, 96), mode="bilinear", align_corners=False
            )[0, 0].numpy()
            whole[y : y + 96, x : x + 96] += large[:, ::-1] if mirrored else large
        if method == "cam":  # signed: the mean over the crops that show a pixel
            times = np.zeros(crops.canvas_size)
            for y, x, _ in crops.corners:
                times[y : y + 96, x : x + 96] += 1
            whole /= times
        assert np.allclose(found.fused.values[b], whole, atol=1e-4 * np.abs(whole).max())


def test_a_mirrored_image_has_the_mirrored_map() -> None:
    model = small("test_resnet", 96, 96)
    crops = transforms.create_ten_crops(model.input_size)
    pixels = np.asarray(
        Image.open(SAMPLES / "coffee.jpg").resize((crops.canvas_size[1], crops.canvas_size[0]))
    )
    both = [Image.fromarray(pixels), Image.fromarray(np.ascontiguousarray(pixels[:, ::-1]))]
    inputs = [
        torch.from_numpy(transforms.preprocess_crops(p, crops, model.transform)) for p in both
    ]
    requests = plan_requests(model, [find_method("gradcam")])
    found = explain_batch(model, torch.cat(inputs), requests, best, ExplainOptions(crops))[0][0]
    one, other = found.fused.values
    assert found.fused.status_names == ["ok", "ok"]
    assert not torch.allclose(one, other, atol=1e-2 * float(one.max()))
    assert torch.allclose(one, other.flip(-1), atol=1e-4 * float(one.max()))


def test_ten_crops_from_the_command_line(cli: Cli) -> None:
    ran = cli(
        "explain", SAMPLES / "chelsea.jpg", "--fit", "tencrop", "--save", "overlay,grid,boxes"
    )
    assert ran.status == 0, ran.err
    (found,) = ran.lines[0]["explanations"]
    assert found["class_name"] == "Egyptian cat"
    box = found["boxes"][0]
    assert box["x1"] < 120
    assert box["x2"] > 300


def test_a_batch_of_ten_crops_equals_its_singles() -> None:
    model = small("test_resnet", 96, 96)
    found = [ImageSource(SAMPLES / n, n, n) for n in ("chelsea.jpg", "coffee.jpg", "rocket.jpg")]

    def maps(batch: int) -> list[np.ndarray]:
        target = targets.parse_target("predicted")(model.labels)
        job = RunConfig(
            model, plan_requests(model, [find_method("layercam")]), target, "tencrop", batch
        )
        results: list[Result] = []
        for result in pipeline.run_pipeline(job, found, lambda r: r):
            assert isinstance(result, Result)
            results.append(result)
        return [r.explanations[0].fused_map.normalized for r in results]

    for together, alone in zip(maps(3), maps(1), strict=True):
        assert np.allclose(together, alone, atol=1e-4)


def test_layers_are_put_together_before_they_are_fused() -> None:
    model = small("test_resnet", 96, 96)
    (request,) = plan_requests(model, [find_method("layercam")], "stage2..4")
    crops = transforms.create_ten_crops(model.input_size)
    picture = Image.open(SAMPLES / "coffee.jpg")
    inputs = torch.from_numpy(transforms.preprocess_crops(picture, crops, model.transform))
    found = explain_batch(model, inputs, [request], best, ExplainOptions(crops))[0][0]
    scaled = [
        request.fusion.scale(maps.values, 96 / layer.grid[0])
        for maps, layer in zip(found.layers, request.layers, strict=True)
    ]
    assert all(maps.shape[1:] == crops.canvas_size for maps in scaled)
    assert torch.allclose(found.fused.values, torch.stack(scaled).amax(dim=0), atol=1e-6)
