"""What every registered method owes every model, by enumeration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import noise, small
from small_networks import FEW, SWIN, hooks, top
from torch import Tensor, nn

from camcli.core.errors import MethodError
from camcli.core.maps import normalize_maps
from camcli.engine.explain_batch import _compute_target_scores, explain_batch
from camcli.engine.plan import plan_requests
from camcli.engine.postprocess import BatchExplanation
from camcli.engine.target_rules import create_class_columns
from camcli.methods.registry import METHODS, find_method
from camcli.models.model import Model

KINDS = {
    "test_resnet": "CNN",
    "test_efficientnet": "CNN",
    "test_convnext": "CNN",
    "vgg11": "CNN",
    "test_vit": "ViT",
    "test_vit2": "ViT",
    "vit_tiny_patch16_224": "ViT",
    "deit_tiny_distilled_patch16_224": "ViT",
    "swin_tiny_patch4_window7_224": "Swin",
}
SIZES = {"vgg11": (224, 224), "swin_tiny_patch4_window7_224": (128, 96)}
OPTIONS: dict[str, dict[str, Any]] = {
    "vgg11": {"mlp_ratio": 0.02},
    "swin_tiny_patch4_window7_224": SWIN,
}
GUIDED = ("guidedbackprop", "guided-gradcam")
REFUSED = {
    # No single linear layer after pooling.
    ("cam", "vgg11"),
    # LayerNorm adds no fixed bias; SiLU and GELU are no ReLU.
    ("fullgrad", "test_convnext"),
    *((m, "test_convnext") for m in ("lrp", "deeplift")),  # LayerNorm has no rule
    *((m, n) for m in (*GUIDED, "polycam") for n in ("test_efficientnet", "test_convnext")),
}
# Methods that run the network many times do so a few times.
# What takes seconds is left to methods of one kind each.
LARGE = {"vgg11", "vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"}
OF_A_KIND = {"gradcam", "eigencam", "guidedbackprop", "tscam", "rollout", "chefer"}
CASES = [
    (name, model)
    for name, m in METHODS.items()
    for model, kind in KINDS.items()
    if kind in m.works_on and (name, model) not in REFUSED
    if model not in LARGE or name in OF_A_KIND
    if name != "xrai" or model in ("test_resnet", "test_vit")  # it cuts images for longer
]
REFUSALS = sorted(
    {
        (name, model)
        for name, m in METHODS.items()
        for model, kind in KINDS.items()
        if kind not in m.works_on
    }
    | REFUSED
)


def model_of(name: str) -> Model:
    return small(name, *SIZES.get(name, (96, 128)), **OPTIONS.get(name, {}))


def run(model: Model, method: str, inputs: Tensor) -> list[BatchExplanation]:
    few = {key: value for key, value in FEW.items() if key in find_method(method).options}
    return explain_batch(
        model, inputs, plan_requests(model, [find_method(method)], options={method: few}), top
    )[0]


@pytest.mark.parametrize(("method", "name"), CASES)
def test_maps_of_every_method_on_every_kind_of_model(method: str, name: str) -> None:
    model = model_of(name)
    found = run(model, method, noise(3, model.input_size))
    for explained in found:
        fused = explained.fused
        assert fused.values.ndim == 3
        assert len(fused.values) == 3
        assert torch.isfinite(fused.values).all()
        assert set(fused.status_names) <= {"ok", "constant"}
        for values, shown, status in zip(
            fused.values, fused.shown, fused.status_names, strict=True
        ):
            assert bool(values.max() > values.min()) == (status == "ok")
            assert shown.min() == 0
            assert shown.max() == (1 if status == "ok" else 0)
    # relu may leave nothing of a random network's map, but not of every one, unless by chance.
    assert any("ok" in explained.fused.status_names for explained in found) or method == "randomcam"


@pytest.mark.parametrize(("method", "name"), CASES)
def test_a_batch_equals_its_singles(method: str, name: str) -> None:
    model = model_of(name)
    inputs = noise(8, model.input_size, seed=5)
    together = run(model, method, inputs)
    for b in (0, 3, 7):
        alone = run(model, method, inputs[b : b + 1])
        for one, all_ in zip(alone, together, strict=True):
            assert one.target_scores.class_indices[0] == all_.target_scores.class_indices[b]
            scale = all_.fused.values[b].abs().max()
            # A probability magnifies what rounding does to large logits.
            share = 1e-4 if "rescore" in METHODS[method].input_names else 1e-5
            assert (one.fused.values[0] - all_.fused.values[b]).abs().max() <= share * (1 + scale)


@pytest.mark.parametrize(("method", "name"), CASES)
def test_nothing_is_left_behind(method: str, name: str) -> None:
    model = model_of(name)
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    fused = [getattr(m, "fused_attn", None) for m in model.network.modules()]
    inputs = noise(2, model.input_size)
    run(model, method, inputs)
    assert not list(hooks(model.network))
    assert all(p.grad is None and not p.requires_grad for p in model.network.parameters())
    assert inputs.grad is None
    assert not any(module.training for module in model.network.modules())
    assert fused == [getattr(m, "fused_attn", None) for m in model.network.modules()]
    for key, value in model.network.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize(("method", "name"), REFUSALS)
def test_a_method_that_cannot_apply_names_those_that_can(method: str, name: str) -> None:
    with pytest.raises(MethodError, match=r"[Tt]ry .*gradcam"):
        plan_requests(model_of(name), [find_method(method)])


def test_no_hook_outlives_an_error() -> None:
    model = model_of("test_resnet")
    requests = plan_requests(model, [find_method("gradcam")])
    with pytest.raises(RuntimeError):
        explain_batch(model, torch.zeros(1, 7, 96, 128), requests, top)
    assert not list(hooks(model.network))


def test_a_shallow_layer_alone_is_not_scaled_as_if_it_were_fused() -> None:
    model = model_of("test_resnet")
    inputs = noise(2, model.input_size)
    alone = explain_batch(
        model, inputs, plan_requests(model, [find_method("layercam")], "stage2"), top
    )[0][0].fused
    fused = explain_batch(
        model, inputs, plan_requests(model, [find_method("layercam")], "all"), top
    )[0][0].layers[1]
    assert torch.allclose(alone.values, fused.values, atol=1e-6)
    assert torch.equal(alone.shown, normalize_maps(alone.values))
    assert (fused.shown - normalize_maps(fused.values)).abs().max() > 0.05  # tanh there


def test_several_methods_and_layers_in_one_pass_equal_each_alone() -> None:
    model = model_of("test_resnet")
    inputs = noise(2, model.input_size)
    names = ["gradcam", "layercam", "cam"]
    together = explain_batch(
        model, inputs, plan_requests(model, [find_method(n) for n in names], "all"), top
    )
    for name, found in zip(names, together, strict=True):
        spec = None if name == "cam" else "all"
        alone = explain_batch(model, inputs, plan_requests(model, [find_method(name)], spec), top)[
            0
        ]
        for one, other in zip(alone, found, strict=True):
            assert torch.allclose(one.fused.values, other.fused.values, atol=1e-6)
            assert [m.name for m in one.layers] == [m.name for m in other.layers]


def test_an_in_place_relu_after_the_tap_does_not_change_the_record() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten())
    from camcli.models.introspection.hooks import record_outputs

    inputs = noise(1, (6, 6))
    with record_outputs(network, graph_layers=["0"]) as recorded:
        network(inputs)
    assert torch.equal(recorded.graph_outputs["0"], network[0](inputs))
    assert recorded.graph_outputs["0"].min() < 0


def test_of_equal_logits_the_first_class_ranks_first_and_nan_ranks_last() -> None:
    model = small("test_resnet", 96, 96)
    inputs = noise(1, (96, 96))
    requests = plan_requests(model, [find_method("gradcam")])

    def ranks(logits: list[float]) -> list[int]:
        values = torch.tensor([logits])
        found = (
            _compute_target_scores(values, values, column)
            for column in create_class_columns(values, torch.arange(len(logits))[None])
        )
        return [int(one.ranks[0]) for one in found]

    assert ranks([0.0, 2.0, 1.0]) == [2, 0, 1]
    assert ranks([1.0, 1.0, 1.0]) == [0, 1, 2]
    assert ranks([float("nan")] * 3) == [3, 3, 3]
    found = explain_batch(model, inputs, requests, top)[0]
    assert [int(one.target_scores.ranks[0]) for one in found] == [0, 1]


@pytest.mark.parametrize("name", ["HiRes-CAM", "grad_cam++", "gradcamelementwise", "TSCAM"])
def test_hyphens_and_case_do_not_matter(name: str) -> None:
    assert find_method(name).name in METHODS


def test_methods_that_change_a_layer_leave_the_record_to_the_others() -> None:
    """What follows this layer works in place: it must work on a copy."""
    model = small("test_resnet", 96, 128)
    layer = "layer3.0.bn3"
    inputs = noise(2, model.input_size)
    methods = [find_method("ablationcam"), find_method("gradcam")]
    both = plan_requests(model, methods, layer, options={"ablationcam": {"channels": 4}})
    together = explain_batch(model, inputs, both, top)[1]
    alone = explain_batch(
        model, inputs, plan_requests(model, [find_method("gradcam")], layer), top
    )[0]
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.fused.values, other.fused.values)


@pytest.mark.parametrize("method", ["eigencam", "kpcacam", "eigengradcam", "dff"])
def test_a_layer_that_is_not_finite_is_told_of_its_image_alone(method: str) -> None:
    model = small("test_resnet", 96, 128)
    inputs = noise(3, model.input_size)
    inputs[1] = float("nan")
    found = run(model, method, inputs)[0].fused.status_names
    assert found == ["ok", "non_finite", "ok"]
