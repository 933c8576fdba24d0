"""What can be tapped, which layer is the default, and how users name layers."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from conftest import lively, noise, small

from camcli.core.errors import LayerError, UsageError
from camcli.core.types import Layer, Transform
from camcli.engine.chosen_layers import find_model_default_layer
from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.methods.registry import find_method
from camcli.models import model as models
from camcli.models.introspection.heads import ConvHead
from camcli.models.introspection.hooks import record_outputs
from camcli.models.introspection.layouts import map_to_output, output_to_map
from camcli.models.introspection.selectors import (
    create_layer_specs,
    find_block_layer,
    find_block_output,
    find_layer_by_name,
    parse_layer_spec,
)
from camcli.models.model import Model

DEFAULTS = {
    "test_resnet": "layer4",
    "test_efficientnet": "bn2",
    "test_convnext": "stages.3",
    "vgg11": "features.20",
    "test_vit": "blocks.5.norm1",  # CLS is classified
    "test_vit2": "blocks.7",  # the mean of the patches is
    "deit_tiny_distilled_patch16_224": "blocks.11.norm1",
    "swin_tiny_patch4_window7_224": "norm",
}


def model_of(name: str) -> Model:
    return small(name, *((224, 224) if name.startswith(("vgg", "swin")) else (96, 128)))


def by_name(model: Model) -> dict[str, Layer]:
    return {layer.name: layer for layer in model.layers}


@pytest.mark.parametrize(("name", "layer"), DEFAULTS.items())
def test_the_default_is_the_last_map_that_the_class_depends_on(name: str, layer: str) -> None:
    assert find_model_default_layer(model_of(name)).name == layer


def test_as_many_classes_as_channels_do_not_change_the_default() -> None:
    network = lively(timm.create_model("test_resnet", num_classes=96))
    model = models.wrap_network("square", network, Transform((96, 96)))
    assert by_name(model)["layer4"].channels == 96
    assert find_model_default_layer(model).name == "layer4"


def test_a_map_a_class_is_an_answer_and_no_default() -> None:
    network = timm.create_model("test_vit", num_classes=0, global_pool="", img_size=96)
    network.head = ConvHead(64, 7, (6, 6), prefix=1)
    model = models.wrap_network("coupled", lively(network), Transform((96, 96)))
    assert "head.conv" in by_name(model)
    assert find_model_default_layer(model).name == "norm"


def test_stages_of_vgg_are_its_five_pools() -> None:
    model = small("vgg16", 224, 224)
    stages = parse_layer_spec("stage1..5", model.layers, lambda: find_model_default_layer(model))
    assert [la.name for la in stages] == [f"features.{n}" for n in (4, 9, 16, 23, 30)]
    assert [la.grid for la in stages] == [(s, s) for s in (112, 56, 28, 14, 7)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("test_resnet", ["act1", "layer1", "layer2", "layer3", "layer4"]),
        ("test_convnext", ["stages.0", "stages.1", "stages.2", "stages.3"]),
        ("swin_tiny_patch4_window7_224", ["layers.0", "layers.1", "layers.2", "layers.3"]),
    ],
)
def test_all_means_every_stage(name: str, expected: list[str]) -> None:
    model = model_of(name)
    found = parse_layer_spec("all", model.layers, lambda: find_model_default_layer(model))
    assert [la.name for la in found] == expected


def test_layouts_grids_and_prefixes() -> None:
    vit = by_name(small("vit_tiny_patch16_224", 96, 128))
    assert vit["blocks.3"] == Layer("blocks.3", "NLC", 192, (6, 8), prefix_token_count=1, block=3)
    assert vit["patch_embed"].prefix_token_count == 0
    deit = by_name(model_of("deit_tiny_distilled_patch16_224"))
    assert deit["blocks.0.norm1"].prefix_token_count == 2
    swin = by_name(model_of("swin_tiny_patch4_window7_224"))
    assert (swin["layers.1"].layout, swin["layers.1"].grid) == ("NHWC", (28, 28))


@pytest.mark.parametrize("name", ["test_vit", "deit_tiny_distilled_patch16_224"])
def test_attention_matrices_and_split_heads_are_no_maps(name: str) -> None:
    names = by_name(model_of(name))
    assert not [n for n in names if ".attn." in n]


def test_a_single_patch_and_its_cls_token_are_no_map_of_two() -> None:
    names = by_name(small("vit_tiny_patch16_224", 16, 16))
    assert not [n for n in names if n.startswith("blocks")]


def test_tokens_become_maps_row_by_row() -> None:
    layer = Layer("x", "NLC", 1, (2, 3), prefix_token_count=1)
    tokens = torch.arange(7.0).reshape(1, 7, 1)
    assert output_to_map(tokens, layer).tolist() == [[[[1, 2, 3], [4, 5, 6]]]]


def test_names_lists_and_duplicates() -> None:
    model = model_of("test_resnet")
    found = parse_layer_spec(
        "layer1, stage2,layer4,last", model.layers, lambda: find_model_default_layer(model)
    )
    assert [la.name for la in found] == ["layer1", "layer4"]


@pytest.mark.parametrize(
    ("name", "spec", "says"),
    [
        ("test_resnet", "layer5", "did you mean layer"),
        ("test_resnet", "stage1..6", "stage1..5"),
        ("test_resnet", "stage0", "stage1..5"),
        ("test_resnet", "stage3..1", "selects no layers"),
        ("test_resnet", ",", "selects no layers"),
        ("test_vit", "stage1", "--block N"),
        ("test_vit", "blocks.5.attn.qkv", "no layer"),
    ],
)
def test_layers_that_are_not_there(name: str, spec: str, says: str) -> None:
    model = model_of(name)
    with pytest.raises(LayerError, match=says):
        parse_layer_spec(spec, model.layers, lambda: find_model_default_layer(model))


@pytest.mark.parametrize(("size", "grids"), [((299, 299), (147, 71, 35, 17, 8)), ((128, 192), ...)])
def test_what_pads_nothing_is_a_map_all_the_same(size: tuple[int, int], grids: Any) -> None:
    """Inception loses cells at every border, as many below as beside."""
    model = small("inception_v3", *size)
    stages = [layer.grid for layer in model.layers if layer.stage is not None]
    assert len(stages) == 5
    assert grids is ... or stages == [(side, side) for side in grids]
    assert find_model_default_layer(model).name == "Mixed_7c"


@pytest.mark.parametrize("pattern", ["blocks.*.norm1", "blocks.?.norm1"])
def test_patterns_of_names(pattern: str) -> None:
    model = model_of("test_vit")
    found = parse_layer_spec(pattern, model.layers, lambda: find_model_default_layer(model))
    assert [la.name for la in found] == [f"blocks.{n}.norm1" for n in range(6)]
    with pytest.raises(LayerError, match="no layer with a map matches"):
        parse_layer_spec("blocks.*", model.layers[:3], lambda: find_model_default_layer(model))


def test_a_pattern_of_ten_thousand_stars_ends() -> None:
    model = model_of("test_vit")
    with pytest.raises(LayerError, match="no layer with a map matches"):
        parse_layer_spec("*?" * 5000 + "!", model.layers, lambda: find_model_default_layer(model))


def test_a_map_in_a_tuple_is_named_by_its_place() -> None:
    model = small("pit_ti_224", 224, 224)
    stages = parse_layer_spec("stage1..3", model.layers, lambda: find_model_default_layer(model))
    assert [la.name for la in stages] == [f"transformers.{n}[0]" for n in range(3)]
    assert find_layer_by_name("transformers.1", model.layers) == stages[1]


def test_hieras_tokens_are_put_in_order() -> None:
    """A bright patch of the image is where the first block's map changes most."""
    model = small("hiera_tiny_224", 224, 224)
    layer = by_name(model)["blocks.0"]
    images = torch.zeros(2, 3, 224, 224)
    images[1, :, 128:144, 48:64] = 3.0
    with record_outputs(model.network, copied_layers=[layer.name]) as recorded:
        model.network(images)
    maps = output_to_map(recorded.copied_outputs[layer.name], layer)
    row, col = divmod(int((maps[1] - maps[0]).abs().sum(0).argmax()), layer.grid[1])
    assert 31 <= row <= 36
    assert 11 <= col <= 16
    again = map_to_output(maps, recorded.copied_outputs[layer.name][:1], layer)
    assert torch.equal(again, recorded.copied_outputs[layer.name])


@pytest.mark.parametrize(("number", "layer"), [(0, 0), (5, 5), (-1, 5), (-6, 0)])
def test_a_block_is_the_input_side_of_its_attention(number: int, layer: int) -> None:
    assert find_block_layer(number, model_of("test_vit").layers).name == f"blocks.{layer}.norm1"


@pytest.mark.parametrize("number", [6, -7])
def test_a_block_out_of_range(number: int) -> None:
    with pytest.raises(LayerError, match=r"blocks 0\.\.5"):
        find_block_layer(number, model_of("test_vit").layers)


SPECS = {  # of the blocks or stages, and the names that these mean
    ("test_resnet", "stage2..4"): ["layer1", "layer2", "layer3"],
    ("test_resnet", "stage2..stage4"): ["layer1", "layer2", "layer3"],
    ("test_resnet", "stage2-4"): ["layer1", "layer2", "layer3"],
    ("test_resnet", "stages 2..4"): ["layer1", "layer2", "layer3"],
    ("test_resnet", "layer2..4"): ["layer2", "layer3", "layer4"],
    ("test_resnet", "-2"): ["layer3"],
    ("test_resnet", "-2,-1"): ["layer3", "layer4"],
    ("test_resnet", "-3..-1"): ["layer2", "layer3", "layer4"],
    ("test_resnet", "stage-2"): ["layer3"],
    ("test_vit", "blocks.1..3"): ["blocks.1", "blocks.2", "blocks.3"],
    ("test_vit", "blocks.1-3"): ["blocks.1", "blocks.2", "blocks.3"],
    ("test_vit", "blocks.1..blocks.3"): ["blocks.1", "blocks.2", "blocks.3"],
    ("test_vit", "blocks.4..5.norm1"): ["blocks.4.norm1", "blocks.5.norm1"],
    ("test_vit", "-2"): ["blocks.4.norm1"],
    ("test_vit", "-2..-1"): ["blocks.4.norm1", "blocks.5.norm1"],
    ("test_vit", "each:-2"): ["blocks.4.norm1"],
}


@pytest.mark.parametrize(("case", "names"), SPECS.items(), ids=lambda x: ",".join(x))
def test_ranges_and_counts_from_the_end(case: tuple[str, str], names: list[str]) -> None:
    name, spec = case
    model = model_of(name)
    found = parse_layer_spec(spec, model.layers, lambda: find_model_default_layer(model))
    assert [layer.name for layer in found] == names


BLOCKS = {
    "0..2": [0, 1, 2],
    "0-2": [0, 1, 2],
    "0,2,5": [0, 2, 5],
    "all": [0, 1, 2, 3, 4, 5],
    "-2..-1": [4, 5],
    "3..-1": [3, 4, 5],
    "5,5,-1": [5],
    "each:1,3": [1, 3],
}


@pytest.mark.parametrize("text", BLOCKS)
def test_lists_and_ranges_of_blocks(text: str) -> None:
    model = model_of("test_vit")
    (spec,) = create_layer_specs(None, text)
    assert spec is not None
    found = parse_layer_spec(spec, model.layers, lambda: find_model_default_layer(model))
    assert [layer.name for layer in found] == [f"blocks.{n}.norm1" for n in BLOCKS[text]]
    outputs = parse_layer_spec(spec, model.layers, lambda: model.layers[-1], find_block_output)
    assert [layer.name for layer in outputs] == [f"blocks.{n}" for n in BLOCKS[text]]


@pytest.mark.parametrize("text", ["", "five", "1.5", "1..", "..3", "blocks.3", "1;2", "12345"])
def test_blocks_that_are_no_numbers(text: str) -> None:
    with pytest.raises(UsageError, match="write a number such as 11"):
        create_layer_specs(None, text)


def test_a_row_for_each_choice_of_layers() -> None:
    assert create_layer_specs(None, None) == (None,)
    assert create_layer_specs(["last", "stage1..5", "last"], [5, "0..2"]) == (
        *("last", "stage1..5", "block 5", "block 0..2"),
    )


def test_a_module_called_block_is_no_transformer_block() -> None:
    """Xception's modules are called block1 ... block12."""
    layers = [Layer(f"block{n}", "NCHW", 8, (6 - n, 6 - n), stage=n) for n in range(1, 4)]
    assert parse_layer_spec("block2", layers, lambda: layers[-1]) == (layers[1],)
    assert parse_layer_spec("block1..2", layers, lambda: layers[-1]) == tuple(layers[:2])
    with pytest.raises(LayerError, match="no transformer blocks"):
        parse_layer_spec("block 2", layers, lambda: layers[-1])


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("blocks.0..9", "no layer 'blocks.6'"),
        ("blocks.3..1", "write the smaller number first"),
        ("-7", r"blocks 0\.\.5"),
        ("-1..-2", "write the smaller number first"),
        ("block 4..6", r"--block 6: this model has blocks 0\.\.5"),
    ],
)
def test_ranges_that_are_not_there(spec: str, says: str) -> None:
    layers = model_of("test_vit").layers
    with pytest.raises(LayerError, match=says):
        parse_layer_spec(spec, layers, lambda: layers[-1])


def test_a_network_without_blocks() -> None:
    with pytest.raises(LayerError, match="no transformer blocks"):
        find_block_layer(0, model_of("test_resnet").layers)


@pytest.mark.parametrize("layer", ["blocks.5", "blocks.5.norm2", "norm"])
def test_past_the_last_attention_of_a_cls_pooled_vit_the_gradient_is_zero(layer: str) -> None:
    model = model_of("test_vit")
    requests = plan_requests(model, [find_method("gradcam")], layer)
    found = explain_batch(model, noise(2, model.input_size), requests, lambda x: x.topk(1).indices)
    assert found[0][0].fused.status_names == ["zero_gradient"] * 2


def test_the_graph_starts_at_the_shallowest_tap() -> None:
    """Nothing before the tap is stored for the backward pass: its output is a leaf."""
    model = model_of("test_resnet")
    with record_outputs(model.network, graph_layers=["layer4", "layer3"]) as recorded:
        model.network(noise(1, model.input_size))
    assert recorded.graph_outputs["layer3"].is_leaf
    assert not recorded.graph_outputs["layer4"].is_leaf


class Shared(torch.nn.Sequential):
    """Four convolutions, each halving the map, with one activation for all of them."""

    def __init__(self, act: torch.nn.Module) -> None:
        blocks = [torch.nn.Conv2d(3 if n == 0 else 8, 8, 3, 2, 1) for n in range(4)]
        pooled = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 5)]
        super().__init__(*(torch.nn.Sequential(block, act) for block in blocks), *pooled)


def test_one_activation_for_all_blocks_does_not_make_them_one() -> None:
    model = models.wrap_network("shared", Shared(torch.nn.SiLU()), Transform((64, 64)))
    assert find_model_default_layer(model).name == "3"
    assert [la.grid for la in model.layers if la.stage is not None][-1] == (4, 4)


class Wrapped(torch.nn.Module):
    """A network inside another, as in everybody's training code."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.model = lively(timm.create_model(name, num_classes=5, img_size=96))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images)
        return logits


@pytest.mark.parametrize("name", ["test_vit", "test_vit3"])
def test_a_network_inside_another_is_read_as_it_is_alone(name: str) -> None:
    inner, outer = (
        models.wrap_network(name, network, Transform((96, 96)))
        for network in (Wrapped(name).model, Wrapped(name))
    )
    assert find_model_default_layer(outer).name == f"model.{find_model_default_layer(inner).name}"
    assert [s.input_layer.prefix_token_count for s in outer.attention_modules] == [
        s.input_layer.prefix_token_count for s in inner.attention_modules
    ]
    for method in ("attention", "rollout", "chefer", "gradcam"):
        images = noise(1, (96, 96))
        one, other = (
            explain_batch(
                m, images, plan_requests(m, [find_method(method)]), lambda _: torch.tensor([[1]])
            )[0][0]
            for m in (inner, outer)
        )
        torch.testing.assert_close(one.fused.values, other.fused.values)
