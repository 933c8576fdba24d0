"""Real weights on real photographs with boxes, where they are at hand: a user's machine has none.

What is asked is what the papers say, with room for chance on a hundred photographs.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Cli

from camcli import models
from camcli.explain import explain
from camcli.images import decode, place, preprocess
from camcli.methods import get
from camcli.models import Model
from camcli.plan import plan

DATA = Path(__file__).parents[2] / "shared" / "data"
PHOTOS = DATA / "ilsvrc_val_227"
WEIGHTS = DATA / "weights"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not WEIGHTS.is_dir(), reason="photographs and weights are not at hand"),
]

Boxes = list[tuple[float, float, float, float]]


def truths(count: int) -> dict[str, tuple[int, Boxes]]:
    boxes: dict[str, Boxes] = defaultdict(list)
    classes: dict[str, int] = {}
    with (PHOTOS / "boxes.csv").open() as file:
        for row in csv.DictReader(file):
            x1, y1, x2, y2 = (float(row[key]) for key in ("x1", "y1", "x2", "y2"))
            boxes[row["image"]].append((x1, y1, x2, y2))
            classes[row["image"]] = int(row["class_index"])
    return {name: (classes[name], boxes[name]) for name in list(boxes)[:count]}


def batch(model: Model, names: list[str]) -> torch.Tensor:
    pictures = [decode(PHOTOS / name) for name in names]
    views = [place(*picture.size, model.transform, "squash") for picture in pictures]
    pixels = [preprocess(p, v, model.transform) for p, v in zip(pictures, views, strict=True)]
    return torch.from_numpy(np.stack(pixels))


def iou(box: dict[str, float], truth: tuple[float, float, float, float]) -> float:
    wide = min(box["x2"], truth[2]) - max(box["x1"], truth[0])
    high = min(box["y2"], truth[3]) - max(box["y1"], truth[1])
    shared = max(wide, 0) * max(high, 0)
    own = (box["x2"] - box["x1"]) * (box["y2"] - box["y1"])
    return shared / (own + (truth[2] - truth[0]) * (truth[3] - truth[1]) - shared)


@pytest.mark.parametrize(
    ("arguments", "method", "expected"),
    [
        (["--model", WEIGHTS / "tscam_vit_tiny_in1k.pth", "--threshold", "0.11"], "tscam", 0.64),
        ([], "cam", 0.64),
    ],
)
def test_boxes_of_the_given_class_meet_the_objects(
    cli: Cli, tmp_path: Path, arguments: list[object], method: str, expected: float
) -> None:
    known = truths(120)
    (tmp_path / "list").write_text("\n".join(str(PHOTOS / name) for name in known))
    with pytest.MonkeyPatch.context() as patch, (tmp_path / "list").open() as listed:
        patch.setattr("sys.stdin", listed)
        target = f"@{PHOTOS / 'boxes.csv'}"
        ran = cli("explain", "-", *arguments, "--method", method, "--target", target)
    assert ran.status == 0, ran.err[-500:]
    hits = [
        any(iou(box, truth) >= 0.5 for box in line["explanations"][0]["boxes"] for truth in boxes)
        for line, (_, boxes) in zip(ran.lines, known.values(), strict=True)
    ]
    # The standard error of a share of 120 is 0.044.
    assert abs(sum(hits) / len(hits) - expected) < 0.12


def test_the_published_head_classifies_and_its_logits_are_the_mean_of_its_maps() -> None:
    model = models.load(str(WEIGHTS / "tscam_vit_tiny_in1k.pth"), device="cpu")
    known = truths(60)
    inputs = batch(model, list(known))
    wanted = torch.tensor([index for index, _ in known.values()])[:, None]
    found = explain(model, inputs, plan(model, [get("tscam")]), lambda _: wanted)[0][0]
    assert found.request.head is not None
    assert found.request.head.kind == "conv"
    with torch.no_grad():
        logits = model.network(inputs)
    semantic = next(part for part in found.parts if part.name == "semantic").values
    assert torch.allclose(semantic.mean(dim=(1, 2)), logits.gather(1, wanted)[:, 0], atol=1e-3)
    assert 0.25 < (logits.argmax(1, keepdim=True) == wanted).float().mean() < 0.75


def test_a_plain_vit_classifies_and_its_default_layer_is_alive() -> None:
    weights = WEIGHTS / "vit_tiny_patch16_224_in1k.safetensors"
    model = models.load("vit_tiny_patch16_224", weights, device="cpu")
    known = truths(60)
    inputs = batch(model, list(known))
    wanted = torch.tensor([index for index, _ in known.values()])[:, None]
    found = explain(model, inputs, plan(model, [get("gradcam")]), lambda x: x.topk(1).indices)[0][0]
    assert (found.chosen.classes[:, None] == wanted).float().mean() > 0.65
    assert found.layers[0].name == "blocks.11.norm1"
    assert found.fused.status.count("ok") >= 58
