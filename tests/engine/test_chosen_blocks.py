"""Methods that join blocks by themselves, for the blocks that the user chose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import reference.attention
import torch
from reference.maps import Doubles
from small_networks import (
    CLASSES,
    assert_same,
    doubles,
    model_of,
    outputs_of,
    photographs,
    recorded,
)
from torch import Tensor

from camcli.core.errors import LayerError, MethodError
from camcli.engine.chosen_layers import split_layer_specs
from camcli.engine.default_model import check_builtin_blocks, choose_default_model
from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import (
    PlanOptions,
    plan_layer_specs,
    plan_requests,
    plan_suitable_methods,
)
from camcli.engine.postprocess import BatchExplanation
from camcli.methods.option_parsing import parse_methods
from camcli.methods.registry import find_method
from camcli.models.introspection.attention_modules import disable_fused_attention
from camcli.models.introspection.selectors import create_layer_specs
from camcli.models.model import Model
from camcli.models.zoo.builtin_names import count_builtin_blocks

GRID = (6, 8)
# How a user writes the choice, and the blocks that it means.
CHOICES = {
    "block 2..4": [2, 3, 4],
    "block 3": [3],
    "blocks.1,blocks.5": [1, 5],
    "blocks.0..1.norm1": [0, 1],
    "-2": [4],
    "last": [5],
    "all": [0, 1, 2, 3, 4, 5],
}


def explain(model: Model, inputs: Tensor, methods: Sequence[str], spec: str | None) -> list[Any]:
    """What each request gives for the first target."""
    requests = plan_requests(model, [find_method(name) for name in methods], spec)
    targets = torch.tensor(CLASSES[: len(inputs)])[:, None]
    return [rows[0] for rows in explain_batch(model, inputs, requests, lambda _: targets)]


def attend(model: Model, image: Tensor, target: int) -> tuple[list[Doubles], list[Doubles]]:
    """Each block's attention, and the gradient of the logit by it."""
    network: Any = model.network
    names = [f"blocks.{n}.attn.attn_drop" for n in range(len(network.blocks))]
    with disable_fused_attention([block.attn for block in network.blocks]):
        matrices, gradients = recorded(network, names, image, target)
    return [doubles(m[0]) for m in matrices], [doubles(g[0]) for g in gradients]


def differentiate_blocks(model: Model, image: Tensor, target: int) -> list[Doubles]:
    """For each block, the gradient by its attention of the logit of its mean token."""
    network: Any = model.network
    numbers = range(len(network.blocks))
    names = [f"blocks.{n}{end}" for n in numbers for end in ("", ".attn.attn_drop")]
    with (
        disable_fused_attention([block.attn for block in network.blocks]),
        outputs_of(network, names) as kept,
    ):
        network(image[None].clone().requires_grad_())
    found = []
    for n in numbers:
        mean = kept[f"blocks.{n}"].mean(dim=1)
        score = network.head(network.fc_norm(network.norm(mean)))[0, target]
        (gradient,) = torch.autograd.grad(
            score, kept[f"blocks.{n}.attn.attn_drop"], retain_graph=True
        )
        found.append(doubles(gradient[0]))
    return found


@pytest.mark.parametrize("spec", CHOICES)
def test_only_the_chosen_blocks_count(spec: str) -> None:
    model = model_of("vit")
    inputs = photographs(model.input_size, 2)
    names = ["attention", "rollout", "gradrollout", "chefer", "legrad"]
    found = {e.request.method.name: e for e in explain(model, inputs, names, spec)}
    for b, target in enumerate(CLASSES[:2]):
        matrices, gradients = attend(model, inputs[b], target)
        own = [matrices[n] for n in CHOICES[spec]]
        slopes = [gradients[n] for n in CHOICES[spec]]
        rows = [reference.attention.attention_to_patches(m, 1, GRID) for m in own]
        assert_same(found["attention"].fused.values[b], np.mean(rows, axis=0))
        for maps, row in zip(found["attention"].layers, rows, strict=True):
            assert_same(maps.values[b], row)
        tokens = {
            "rollout": reference.attention.rollout(own),
            "gradrollout": reference.attention.gradrollout(own, slopes),
            "chefer": reference.attention.chefer(own, slopes),
        }
        for name, expected in tokens.items():
            read = reference.attention.read(expected, [0], 1, GRID)
            assert_same(found[name].fused.values[b], read)
        chosen = [differentiate_blocks(model, inputs[b], target)[n] for n in CHOICES[spec]]
        row = reference.attention.legrad(chosen)
        read = reference.attention.read(row, [], 1, GRID)
        assert_same(found["legrad"].fused.values[b], read)
    layers = [[la.name for la in e.request.source_layers] for e in found.values()]
    assert layers == [[f"blocks.{n}" for n in CHOICES[spec]]] * len(names)


def assert_same_maps(found: BatchExplanation, expected: BatchExplanation) -> None:
    assert torch.equal(found.fused.values, expected.fused.values)
    assert [m.name for m in found.layers] == [m.name for m in expected.layers]


def test_tscam_sums_the_attention_of_the_chosen_blocks() -> None:
    model = model_of("vit, patches pooled")
    inputs = photographs(model.input_size, 2)
    (whole,) = explain(model, inputs, ["tscam"], None)
    (found,) = explain(model, inputs, ["tscam"], "block 2..4")
    semantic = next(part.values for part in whole.parts if part.name == "semantic")
    for b, target in enumerate(CLASSES[:2]):
        matrices, _ = attend(model, inputs[b], target)
        rows = [reference.attention.attention_to_patches(m, 1, GRID) for m in matrices[2:5]]
        assert_same(found.fused.values[b], sum(rows) * doubles(semantic[b]))
        parts = {part.name: part.values[b] for part in found.parts}
        assert_same(parts["attention"], np.sum(rows, axis=0))
    assert [m.name for m in found.layers] == ["blocks.2", "blocks.3", "blocks.4"]


def test_all_blocks_are_what_is_joined_without_a_choice() -> None:
    model = model_of("vit, patches pooled")
    inputs = photographs(model.input_size, 2)
    names = ["tscam", "rollout", "gradrollout", "chefer", "legrad"]
    for found, expected in zip(
        explain(model, inputs, names, "block 0..-1"),
        explain(model, inputs, names, None),
        strict=True,
    ):
        assert_same_maps(found, expected)


def test_choices_in_one_pass_do_not_mix() -> None:
    """Each row is what it is alone: no tensor of one choice of blocks serves another."""
    model = model_of("vit")
    inputs = photographs(model.input_size, 2)
    methods = parse_methods(["rollout", "attention", "legrad", "gradcam"])
    specs = ["block 1", "block 2..3", "block 5"]
    requests = plan_layer_specs(model, methods, specs, PlanOptions())
    assert len(requests) == 12
    targets = torch.tensor(CLASSES[:2])[:, None]
    together = [rows[0] for rows in explain_batch(model, inputs, requests, lambda _: targets)]
    for number, spec in enumerate(specs):
        alone = explain(model, inputs, [m.name for m in methods], spec)
        for found, expected in zip(together[4 * number :], alone, strict=False):
            assert torch.allclose(found.fused.values, expected.fused.values, rtol=1e-4, atol=1e-7)


def test_class_attention_keeps_its_tokens() -> None:
    """CaiT's CLS token comes late: blocks before it say nothing of CLS."""
    from conftest import small

    model = small("cait_xxs24_224", 224, 224)
    inputs = photographs(model.input_size, 1)
    (found,) = explain(model, inputs, ["attention"], "last")
    assert found.fused.values.shape == (1, 14, 14)
    with pytest.raises(MethodError, match=r"choose from blocks_token_only\.0\.\.1"):
        plan_requests(model, [find_method("attention")], "blocks.3")


def test_each_chosen_layer_is_a_request_of_its_own() -> None:
    model = model_of("vit")
    methods = parse_methods(["gradcam", "rollout"])
    for spec, fusion in (("each:block 1..2", None), ("block 1..2", "none")):
        requests = plan_requests(model, methods, spec, fusion=fusion)
        found = [(r.method.name, [la.name for la in r.source_layers]) for r in requests]
        assert found == [
            ("gradcam", ["blocks.1.norm1"]),
            ("gradcam", ["blocks.2.norm1"]),
            ("rollout", ["blocks.1"]),
            ("rollout", ["blocks.2"]),
        ]


def test_rows_are_each_layer_once() -> None:
    model = model_of("vit")
    specs = create_layer_specs(["blocks.1.norm1", "blocks.0"], [1, 0])
    requests = plan_layer_specs(model, parse_methods(["gradcam", "rollout"]), specs, PlanOptions())
    found = [(r.method.name, r.source_layers[0].name) for r in requests]
    assert found == [
        ("gradcam", "blocks.1.norm1"),
        ("rollout", "blocks.1"),
        ("gradcam", "blocks.0"),
        ("rollout", "blocks.0"),
        ("gradcam", "blocks.0.norm1"),
    ]


def test_each_layer_is_a_choice_of_its_own() -> None:
    specs = ["each:stage1..2,-1,layer2", "last", None]
    expected = ["stage1", "stage2", "stage5", "layer2", "last", None]
    assert split_layer_specs(model_of("resnet"), specs) == expected
    specs = ["each:block 0..1,blocks.2"]
    assert split_layer_specs(model_of("vit"), specs) == ["block 0", "block 1", "blocks.2"]


@pytest.mark.parametrize(
    ("method", "spec", "says"),
    [
        ("attention:block=1", "block 3", "omit the option block"),
        ("rollout", "norm", r"norm has no attention .* choose from blocks\.0\.\.5"),
        ("rise", "block 3", "no effect on rise"),
        ("cam", "block 3", "no effect on cam"),
        ("rollout", "block 6", r"blocks 0\.\.5"),
    ],
)
def test_choices_that_cannot_be(method: str, spec: str, says: str) -> None:
    model = model_of("vit, patches pooled")
    with pytest.raises((MethodError, LayerError), match=says):
        plan_requests(model, parse_methods([method]), spec)


def test_options_that_choose_blocks_go_with_no_other_choice() -> None:
    options = {"attention": {"block": "3"}}
    with pytest.raises(MethodError, match="omit the option block"):
        plan_requests(model_of("vit"), [find_method("attention")], "block 2", options=options)


def test_methods_that_do_not_suit_are_left_out_with_their_reasons() -> None:
    model = model_of("vit")
    methods = parse_methods(["fullgrad", "gradcam", "rollout"])
    plan = plan_suitable_methods(model, methods, [None], PlanOptions())
    assert [request.method.name for request in plan.requests] == ["gradcam", "rollout"]
    assert list(plan.left_out) == ["fullgrad"]
    assert plan.left_out["fullgrad"].startswith("fullgrad needs a network of convolutions")
    with pytest.raises(MethodError, match="fullgrad needs"):
        plan_suitable_methods(model, methods[:1], [None], PlanOptions())


def test_blocks_take_a_built_in_transformer() -> None:
    gradcam, tscam, rise = parse_methods(["gradcam", "tscam", "rise"])
    assert choose_default_model([gradcam]) == "tf_efficientnet_lite0"
    assert choose_default_model([], ["stage4", "blocks.3"]) == "tf_efficientnet_lite0"
    assert choose_default_model([gradcam, rise], ["stage4", "block 3"]) == "vit_lite0"
    assert choose_default_model([], ["each:block 0..3"]) == "vit_lite0"
    assert choose_default_model([gradcam, tscam], ["block 3"]) == "tscam_vit_lite0"


def test_the_built_in_transformer_has_the_blocks_of_its_weights() -> None:
    from camcli.models.zoo.builtin_names import BUILTIN_VIT
    from camcli.models.zoo.builtin_networks import load_builtin_vit

    network: Any = load_builtin_vit(BUILTIN_VIT)
    count = len(network.blocks)
    assert count_builtin_blocks() == count
    for spec in (f"block {count - 1}", f"block {-count}", "block 0..-1", "stage9", None):
        check_builtin_blocks(BUILTIN_VIT, [spec])
    for spec in (f"block {count}", f"block 0..{count}", f"block {-count - 1}"):
        with pytest.raises(LayerError, match=rf"blocks 0\.\.{count - 1}; write --block"):
            check_builtin_blocks(BUILTIN_VIT, [None, spec])
    check_builtin_blocks("vit_tiny_patch16_224", ["block 99"])
