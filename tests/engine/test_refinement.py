"""Maps refined by their own image: against slow twins, and what holds for every map."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from conftest import PHOTOS, Cli, noise, small
from small_networks import (
    CLASSES,
    LAYERS,
    Read,
    assert_same,
    channels_first,
    doubles,
    hooks,
    model_of,
    outputs_of,
    photographs,
    tokens,
    top,
)
from torch import Tensor

from camcli.core.errors import CamcliError, LayerError, MethodError, UsageError
from camcli.core.maps import resize_maps
from camcli.engine.affinity import (
    compute_feature_affinity,
    filter_guided,
    normalize_affinity,
    spread_maps,
)
from camcli.engine.explain_batch import ExplainOptions, explain_batch
from camcli.engine.plan import plan_requests
from camcli.engine.postprocess import BatchExplanation
from camcli.engine.refine_options import parse_refine_options
from camcli.engine.smoothing import parse_smoothing
from camcli.methods.option_parsing import parse_methods
from camcli.methods.registry import find_method
from camcli.models.introspection.affinity_layer import find_affinity_layer
from camcli.models.introspection.attention_modules import disable_fused_attention
from camcli.models.model import Model


def refined(
    model: Model, method: str, inputs: Tensor, refine: str, spec: str | None = None
) -> BatchExplanation:
    """The maps of one method, refined, each image for its own class."""
    targets = torch.tensor(CLASSES[: len(inputs)])[:, None]
    requests = plan_requests(
        model, [find_method(method)], spec, refine=parse_refine_options(refine)
    )
    return explain_batch(model, inputs, requests, lambda _: targets)[0][0]


# --- against the slow twins


FEATURES: list[tuple[str, str, str, Read]] = [
    ("resnet", "gradcam", "layer3", channels_first),
    ("efficientnet", "layercam", "blocks.2", channels_first),
    ("vit", "chefer", "blocks.2", tokens(1, 6, 8)),
    ("vit, no CLS but a register", "gradcam", "blocks.4", tokens(1, 6, 8)),
    ("swin", "gradcam", "layers.2", LAYERS[7][2]),
]


@pytest.mark.parametrize(("key", "method", "layer", "read"), FEATURES)
@pytest.mark.parametrize("options", ["", ",power=3,sinkhorn=2"])
def test_affinity_of_features(key: str, method: str, layer: str, read: Read, options: str) -> None:
    model = model_of(key)
    inputs = photographs(model.input_size, 2)
    plain = refined(model, method, inputs, "none").fused.values
    found = refined(model, method, inputs, f"affinity:layer={layer}{options}").fused.values
    power, steps = (3, 2) if options else (2, 0)
    for b in range(len(inputs)):
        with outputs_of(model.network, [layer]) as kept:
            model.network(inputs[b : b + 1])
        features = read(kept[layer])
        affinity = reference.refinement.feature_affinity(features, power)
        weights = reference.refinement.normalize(affinity, steps)
        expected = reference.refinement.spread(doubles(plain[b]), weights, features.shape[1:])
        assert_same(found[b], expected)


@pytest.mark.parametrize(("key", "prefix"), [("vit", 1), ("vit, no CLS but a register", 1)])
def test_affinity_of_attention(key: str, prefix: int) -> None:
    model = model_of(key)
    inputs = photographs(model.input_size, 2)
    plain = refined(model, "gradcam", inputs, "none").fused.values
    found = refined(model, "gradcam", inputs, "affinity:source=attention").fused.values
    modules = [module.module for module in model.attention_modules]
    names = [f"{module.name}.attn_drop" for module in model.attention_modules]
    for b in range(len(inputs)):
        with disable_fused_attention(modules), outputs_of(model.network, names) as kept:
            model.network(inputs[b : b + 1])
        every = [doubles(kept[name][0]) for name in names]
        mean = sum(matrix[h] for matrix in every for h in range(len(matrix)))
        mean = mean[prefix:, prefix:] / sum(map(len, every))
        weights = reference.refinement.normalize(mean, 3)
        expected = reference.refinement.spread(doubles(plain[b]), weights, (6, 8))
        assert_same(found[b], expected)


def test_guided_filter() -> None:
    model = model_of("resnet")
    inputs = photographs((40, 48), 2)
    plain = torch.rand(2, 5, 6, generator=torch.Generator().manual_seed(3)) - 0.2
    images = inputs / 2 + 0.5
    found = filter_guided(plain, images, 4, 0.01)
    for b in range(2):
        expected = reference.refinement.guided(doubles(plain[b]), doubles(images[b]), 4, 0.01)
        assert_same(found[b], expected, 1e-3)
    # In a run, the image in [0, 1] comes from the normalised input.
    inputs = photographs(model.input_size, 2)
    run = refined(model, "gradcam", inputs, "guided:radius=8,epsilon=0.1").fused.values
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (model.transform.mean, model.transform.std)
    )
    maps = refined(model, "gradcam", inputs, "none").fused.values
    assert torch.allclose(run, filter_guided(maps, inputs * std + mean, 8, 0.1), atol=1e-5)


# --- what holds for every map


def test_rows_sum_to_one_and_a_constant_map_stays_constant() -> None:
    features = torch.randn(2, 7, 4, 5)
    for steps in (0, 3):
        weights = normalize_affinity(compute_feature_affinity(features, 2), steps)
        assert torch.allclose(weights.sum(dim=2), torch.ones(2, 20), atol=1e-6)
        flat = spread_maps(torch.full((2, 4, 5), 0.3), weights, (4, 5))
        assert torch.allclose(flat, torch.full_like(flat, 0.3), atol=1e-6)
    many = normalize_affinity(compute_feature_affinity(features, 2), 200)
    assert torch.allclose(many.sum(dim=1), torch.ones(2, 20), atol=1e-4)


def test_the_affinity_of_features_that_have_nothing_in_common_is_the_identity() -> None:
    features = torch.eye(6).reshape(1, 6, 2, 3) * 5
    maps = torch.rand(1, 2, 3)
    weights = normalize_affinity(compute_feature_affinity(features, 2), 3)
    assert torch.equal(weights[0], torch.eye(6))
    assert torch.equal(spread_maps(maps, weights, (2, 3)), maps)


def test_a_position_without_features_keeps_its_value() -> None:
    features = torch.zeros(1, 3, 2, 2)
    features[0, :, 0] = 1
    weights = normalize_affinity(compute_feature_affinity(features, 2), 0)
    found = spread_maps(torch.tensor([[[0.2, 0.6], [0.5, 0.9]]]), weights, (2, 2))
    assert torch.allclose(found, torch.tensor([[[0.4, 0.4], [0.5, 0.9]]]))


def test_permuted_positions_give_a_permuted_map() -> None:
    features, maps = torch.randn(1, 5, 3, 4), torch.rand(1, 3, 4)
    order = torch.randperm(12)

    def permute(values: Tensor) -> Tensor:
        return values.flatten(-2)[..., order].reshape(values.shape)

    def refine(f: Tensor, m: Tensor) -> Tensor:
        return spread_maps(m, normalize_affinity(compute_feature_affinity(f, 2), 2), (3, 4))

    assert torch.allclose(
        refine(permute(features), permute(maps)), permute(refine(features, maps)), atol=1e-6
    )


@pytest.mark.parametrize(
    ("key", "method", "refine"),
    [
        ("resnet", "layercam", "affinity"),
        ("resnet", "saliency", "affinity"),
        ("resnet", "dff", "affinity"),
        ("resnet", "gradcam", "guided"),
        ("vit", "chefer", "affinity"),
        ("vit", "tscam", "affinity:source=attention"),
        ("swin", "gradcam", "affinity"),
    ],
)
def test_a_batch_equals_its_singles_and_nothing_is_left(key: str, method: str, refine: str) -> None:
    model = model_of(key)
    inputs = noise(3, model.input_size)
    requests = plan_requests(model, [find_method(method)], refine=parse_refine_options(refine))

    def maps_of(part: Tensor) -> Tensor:
        return explain_batch(model, part, requests, top)[0][0].fused.values

    together = maps_of(inputs)
    for b in range(3):
        alone = maps_of(inputs[b : b + 1])[0]
        assert (alone - together[b]).abs().max() <= 1e-5 * (1 + together[b].abs().max())
    assert not list(hooks(model.network))
    assert all(p.grad is None for p in model.network.parameters())


def test_refinement_composes_with_layers_and_views() -> None:
    model = model_of("resnet")
    inputs = photographs(model.input_size, 2)
    several = refined(model, "layercam", inputs, "affinity", "stage3..4")
    assert [tuple(layer.values.shape[1:]) for layer in several.layers] == [(12, 16), (12, 16)]
    targets = torch.tensor(CLASSES[:2])[:, None]
    smoothing = parse_smoothing("scales:64,96")
    affinity = parse_refine_options("affinity")
    requests = plan_requests(model, [find_method("gradcam")], refine=affinity, smoothing=smoothing)
    options = ExplainOptions(smoothing=smoothing)
    found = explain_batch(model, inputs, requests, lambda _: targets, options)[0][0].fused.values
    views = []
    for view, is_mirrored in smoothing.iter_views(inputs):
        maps = refined(model, "gradcam", view, "affinity").fused.values
        views.append(resize_maps(maps.flip(2) if is_mirrored else maps, (6, 8)))
    assert len(views) == 4
    assert torch.allclose(found, torch.stack(views).mean(dim=0), atol=1e-5)


def test_one_pass_serves_a_method_with_and_without_refinement() -> None:
    model = model_of("resnet")
    inputs = photographs(model.input_size, 2)
    methods = parse_methods("gradcam,gradcam:refine=affinity,gradcam:refine=guided")
    assert [method.refine for method in methods] == ["", "affinity", "guided"]
    found = explain_batch(model, inputs, plan_requests(model, methods), top)
    for method, explained in zip(methods, found, strict=True):
        refine = parse_refine_options(method.refine or "none")
        requests = plan_requests(model, [find_method("gradcam")], refine=refine)
        alone = explain_batch(model, inputs, requests, top)[0][0].fused.values
        assert torch.allclose(explained[0].fused.values, alone, atol=1e-6)


# --- which layer is compared


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("vit", "affinity:source=attention,sinkhorn=3"),
        ("swin", "affinity:layer=layers.2,power=2"),
        ("resnet", "affinity:layer=layer3,power=2"),
    ],
)
def test_attention_is_the_source_on_plain_transformers(key: str, told: str) -> None:
    requests = plan_requests(
        model_of(key), [find_method("gradcam")], refine=parse_refine_options("affinity")
    )
    assert requests[0].refiner is not None
    assert requests[0].refiner.spec == told


@pytest.mark.parametrize(
    ("name", "size", "map_layer", "expected"),
    [
        ("resnet18", 224, "layer4", "layer3"),
        ("resnet18", 224, "layer3", "layer3.0"),
        ("efficientnet_lite0", 224, "blocks.2", "blocks.2.0"),
        ("vgg11", 224, "features.20", "features.15"),
        ("convnext_atto", 224, "stages.3", "stages.2"),
        ("vit_tiny_patch16_224", 224, "blocks.11.norm1", "blocks.5"),
        ("levit_128s", 224, "stages.2", "stages.1"),
    ],
)
def test_the_layer_lies_in_the_middle_of_the_network(
    name: str, size: int, map_layer: str, expected: str
) -> None:
    model = small(name, size, size, **({"mlp_ratio": 0.02} if name == "vgg11" else {}))
    layer = next(la for la in model.layers if la.name == map_layer)
    found = find_affinity_layer(model.layers, layer)
    assert found is not None
    assert found.name == expected


def test_the_built_in_transformer_compares_features_of_its_trunk() -> None:
    from camcli.models.model import load_model

    model = load_model("tscam_vit_lite0", device="cpu")
    (request,) = plan_requests(
        model, [find_method("tscam")], refine=parse_refine_options("affinity")
    )
    assert request.refiner is not None
    assert request.refiner.spec == "affinity:layer=patch_embed.backbone.blocks.4,power=2"


# --- wrong values


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("affine", "write none, affinity"),
        ("affinity:power=0", "'0' is no number from 0.01 to 100"),
        ("affinity:power=nan", "'nan' is no number"),
        ("affinity:power", "write KEY=VALUE"),
        ("affinity:layer=", "layer has no value"),
        ("affinity:radius=3", "affinity has no option radius"),
        ("affinity:source=keys", "is not one of auto, features, attention"),
        ("affinity:source=attention,layer=last", "omit layer and power"),
        ("guided:radius=2.5", "'2.5' is no number from 1 to 1000"),
        ("none:power=2", "none has no option power"),
        ("", "write none, affinity"),
    ],
)
def test_a_wrong_refinement_is_refused(spec: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        parse_refine_options(spec)


@pytest.mark.parametrize(
    ("key", "refine", "told", "error"),
    [
        ("resnet", "affinity:source=attention", "needs attention over all patch", MethodError),
        ("resnet", "affinity:layer=stage1..2", "are 2 layers; name one", LayerError),
        ("vgg", "affinity:layer=stage1", "the limit is 4096", LayerError),
        ("resnet", "affinity:layer=stage9", "no stage9", LayerError),
    ],
)
def test_what_a_model_lacks_is_told(
    key: str, refine: str, told: str, error: type[CamcliError]
) -> None:
    with pytest.raises(error, match=told):
        refined(model_of(key), "gradcam", photographs(model_of(key).input_size, 1), refine)


# --- for users


def test_the_command_line(cli: Cli) -> None:
    options = ("--layers", "last", "--save", "boxes,array", "--format", "jsonl")
    ran = cli("explain", PHOTOS[0], "-m", "gradcam", "--refine", "affinity", *options, "-o", "a")
    assert ran.status == 0
    (line,) = ran.lines
    assert line["refine"] == "affinity:layer=blocks.4,power=2"
    assert line["threshold"] == find_method("gradcam").refined_threshold
    again = cli(
        "explain", PHOTOS[0], "-m", "gradcam", "--refine", line["refine"], *options, "-o", "b"
    )
    with np.load("a/chelsea.gradcam.npz") as one, np.load("b/chelsea.gradcam.npz") as other:
        (key, *_) = one.files
        assert one[key].shape == (14, 14)
        assert np.array_equal(one[key], other[key])
    boxes, same_boxes = (run["explanations"][0]["boxes"] for run in (line, *again.lines))
    assert boxes == same_boxes
    refused = cli("explain", PHOTOS[0], "-m", "gradcam", *options, "-o", "a", "--resume")
    assert refused.status == 2


def test_rows_of_an_evaluation(cli: Cli, tmp_path: Path) -> None:
    ran = cli(
        *("evaluate", "localization", PHOTOS[0].parent, "--resamples", "10", "--output", "o"),
        *("--method", "gradcam,gradcam:refine=affinity", "--limit", "2", "--format", "jsonl"),
    )
    assert ran.status == 0, ran.err
    text = (tmp_path / "o" / "localization.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["method"] for row in rows][:2] == ["gradcam", "gradcam:refine=affinity"]
    assert rows[0]["energy"] != rows[1]["energy"]


def test_a_saliency_map_becomes_a_coarse_one(cli: Cli) -> None:
    cli("explain", PHOTOS[0], "-m", "saliency", "--refine", "affinity", "-o", "s")
    settings = json.loads(Path("s/run.json").read_text())["settings"]
    assert settings["refine"] == "affinity"


def test_an_earlier_run_without_the_option_can_be_resumed(cli: Cli) -> None:
    cli("explain", PHOTOS[0], "-m", "gradcam", "--save", "boxes", "-o", "s")
    assert "refine" not in json.loads(Path("s/run.json").read_text())["settings"]
