"""Real weights on real photographs with boxes, where they are at hand: a user's machine has none.

What is asked is what the papers say, with room for chance on a hundred photographs.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Cli

from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.io.images import load_image
from camcli.io.transforms import compute_view, preprocess_image
from camcli.methods.registry import find_method
from camcli.models import model as models
from camcli.models.model import Model

DATA = Path(__file__).parents[3] / "shared" / "data"
PHOTOS = DATA / "ilsvrc_val_227"
WEIGHTS = DATA / "weights"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not WEIGHTS.is_dir(), reason="photographs and weights are not at hand"),
]


def truths(count: int) -> dict[str, int]:
    """The class of each of the first photographs."""
    with (PHOTOS / "boxes.csv").open() as file:
        classes = {row["image"]: int(row["class_index"]) for row in csv.DictReader(file)}
    return dict(list(classes.items())[:count])


def batch(model: Model, names: list[str]) -> torch.Tensor:
    pictures = [load_image(PHOTOS / name) for name in names]
    views = [compute_view(*picture.size, model.transform, "squash") for picture in pictures]
    pixels = [preprocess_image(p, v, model.transform) for p, v in zip(pictures, views, strict=True)]
    return torch.from_numpy(np.stack(pixels))


@pytest.mark.parametrize(
    ("arguments", "best", "pointing"),
    [
        (["--model", WEIGHTS / "tscam_vit_tiny_in1k.pth", "--method", "tscam"], 0.64, 0.81),
        (["--method", "cam"], 0.68, 0.90),
    ],
)
def test_maps_of_the_true_class_meet_the_objects(
    cli: Cli, arguments: list[object], best: float, pointing: float
) -> None:
    ran = cli("evaluate", "localization", PHOTOS, *arguments, "--limit", "120")
    assert ran.status == 0, ran.err[-500:]
    metrics = ran.lines[0]["metrics"]
    # The standard error of a share of 120 is 0.044.
    assert abs(metrics["max_box_acc"]["value"] - best) < 0.12
    assert abs(metrics["pointing_strict"]["value"] - pointing) < 0.1
    assert metrics["max_box_acc"]["value"] > ran.lines[-1]["metrics"]["max_box_acc"]["value"]


def test_the_embedded_transformer_keeps_its_card(cli: Cli) -> None:
    """Coupled is the best of TS-CAM's parts, and no worse than the CAM that it was taught by."""
    parts = "tscam,tscam:part=attention,tscam:part=semantic"
    ran = cli("evaluate", "localization", PHOTOS, "--method", parts, "--limit", "200")
    assert ran.status == 0, ran.err[-500:]
    found = {row["method"]: row["metrics"] for row in ran.lines}
    coupled = found["tscam"]
    # The card's figures less two standard errors of a share of 200.
    assert coupled["cls_1"]["value"] > 0.66
    assert coupled["gt_known"]["value"] > 0.62
    assert coupled["pointing_strict"]["value"] > 0.89
    for part in parts.split(",")[1:]:
        assert coupled["gt_known"]["value"] > found[part]["gt_known"]["value"]
    known = cli(
        "evaluate", "localization", PHOTOS, "--method", "cam", "--limit", "200", "--output", "x"
    )
    best = known.lines[0]["metrics"]["max_box_acc"]["value"]
    assert coupled["max_box_acc"]["value"] > best - 0.03


def test_the_published_head_classifies_and_its_logits_are_the_mean_of_its_maps() -> None:
    model = models.load_model(str(WEIGHTS / "tscam_vit_tiny_in1k.pth"), device="cpu")
    known = truths(60)
    inputs = batch(model, list(known))
    wanted = torch.tensor(list(known.values()))[:, None]
    found = explain_batch(
        model, inputs, plan_requests(model, [find_method("tscam")]), lambda _: wanted
    )[0][0]
    assert found.request.head is not None
    assert found.request.head.kind == "conv"
    with torch.no_grad():
        logits = model.network(inputs)
    semantic = next(part for part in found.parts if part.name == "semantic").values
    assert torch.allclose(semantic.mean(dim=(1, 2)), logits.gather(1, wanted)[:, 0], atol=1e-3)
    assert 0.25 < (logits.argmax(1, keepdim=True) == wanted).float().mean() < 0.75


def test_a_plain_vit_classifies_and_its_default_layer_is_alive() -> None:
    weights = WEIGHTS / "vit_tiny_patch16_224_in1k.safetensors"
    model = models.load_model("vit_tiny_patch16_224", weights, device="cpu")
    known = truths(60)
    inputs = batch(model, list(known))
    wanted = torch.tensor(list(known.values()))[:, None]
    found = explain_batch(
        model, inputs, plan_requests(model, [find_method("gradcam")]), lambda x: x.topk(1).indices
    )[0][0]
    assert (found.target_scores.class_indices[:, None] == wanted).float().mean() > 0.65
    assert found.layers[0].name == "blocks.11.norm1"
    assert found.fused.status_names.count("ok") >= 58
