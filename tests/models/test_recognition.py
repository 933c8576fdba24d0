"""The architecture of bare weights, from their names and shapes."""

from __future__ import annotations

import random
from functools import cache

import pytest
import timm
import torch
import torchvision

from camcli.models.zoo import recognition
from camcli.models.zoo.recognition import find_architecture, load_signature_index

Shapes = dict[str, tuple[int, ...]]

# Long to build, or, of torchvision's, not on the meta device.
SLOW = (
    *("giant", "huge", "gigantic", "xxlarge", "large", "_1b", "_3b", "_7b", "so400m", "nfnet"),
    *("cait", "xcit", "vision:regnet", "googlenet", "inception", "_36", "101", "152", "_24"),
    *("200", "269", "volo", "hrnet", "v2_m", "focal", "base", "b5", "b6", "b7", "b8", "swinv2"),
)
# DataParallel, torch.compile in it, Lightning, an EMA copy, self-distillation.
PREFIXES = ("", "module.", "module._orig_mod.", "model.net.", "ema.module.", "student.a.backbone.")


@cache
def shapes(name: str, classes: int = 7) -> Shapes:
    with torch.device("meta"):
        if name.startswith("torchvision:"):
            bare = name.partition(":")[2]
            network = torchvision.models.get_model(bare, weights=None, num_classes=classes)
        else:
            network = timm.create_model(name, num_classes=classes)
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def names() -> list[str]:
    return [
        entry.name
        for entries in load_signature_index().entries_by_trunk.values()
        for entry in entries
    ]


def some(count: int) -> list[str]:
    """Architectures by chance, the same in every run, that are quick to build."""
    quick = sorted(name for name in names() if not any(part in name for part in SLOW))
    return random.Random(0).sample(quick, count)


def wrapped(state: Shapes, prefix: str) -> Shapes:
    return {prefix + key: shape for key, shape in state.items()}


@pytest.mark.parametrize("name", some(60))
def test_an_architecture_is_known_whatever_wraps_it(name: str) -> None:
    state = shapes(name)
    for prefix in PREFIXES:
        found = find_architecture(wrapped(state, prefix), [name.partition(":")[2] or name])
        assert found is not None
        assert name in found.candidates
        assert found.name is not None
        assert found.name.removeprefix("torchvision:") == name.removeprefix("torchvision:")
        assert found.prefix == prefix


@pytest.mark.parametrize(
    "name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto", "mobilenetv3_small_100"]
)
def test_the_classes_are_counted(name: str) -> None:
    found = find_architecture(shapes(name, 13))
    assert found is not None
    assert found.class_count == 13


@pytest.mark.parametrize(
    "name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"]
)
def test_a_trunk_without_classifier_has_no_classes(name: str) -> None:
    found = find_architecture(shapes(name, 0))
    assert found is not None
    assert name in found.candidates
    assert found.class_count is None


def test_mmpretrain_has_its_head_beside_the_backbone() -> None:
    trunk = wrapped(shapes("resnet18", 0), "backbone.")
    found = find_architecture({**trunk, "head.fc.weight": (5, 512), "head.fc.bias": (5,)})
    assert found is not None
    assert "resnet18" in found.candidates
    assert (found.class_count, found.prefix) == (5, "backbone.")


def test_what_only_training_used_is_passed_over() -> None:
    state = wrapped(shapes("resnet18"), "student.")
    teacher = wrapped(shapes("resnet18"), "teacher.")
    found = find_architecture({**state, **teacher, "center": (1, 65536), "n_averaged": ()})
    assert found is not None
    assert "resnet18" in found.candidates
    assert found.class_count == 7


def test_buffers_that_versions_differ_in_are_passed_over() -> None:
    state = shapes("swin_tiny_patch4_window7_224")
    table = "layers.0.blocks.0.attn.relative_position_index"
    trained = {k: v for k, v in shapes("resnet18").items() if "num_batches" not in k}
    assert find_architecture({**state, table: (49, 49)}) == find_architecture(state)
    assert find_architecture(trained) == find_architecture(shapes("resnet18"))


@pytest.mark.parametrize(
    ("hints", "name"),
    [
        ([], "vit_tiny_patch16_224"),
        (["deit_tiny_patch16_224"], "deit_tiny_patch16_224"),
        (["runs/DeiT-tiny-patch16-224.fb_in1k"], "deit_tiny_patch16_224"),
        (["resnet50", "deit_tiny_patch16_224"], "deit_tiny_patch16_224"),
        (["vit_tiny_patch16_224", "deit_tiny_patch16_224"], "vit_tiny_patch16_224"),
    ],
)
def test_twins_are_told_apart_by_hints(hints: list[str], name: str) -> None:
    found = find_architecture(shapes("deit_tiny_patch16_224"), hints)
    assert found is not None
    assert found.name == name
    assert {"deit_tiny_patch16_224", "vit_tiny_patch16_224"} <= set(found.candidates)


def test_networks_of_other_behaviour_are_not_guessed_between() -> None:
    state = shapes("resnet50d")
    found = find_architecture(state)
    assert found is not None
    assert (found.name, found.rare_names) == (None, ())
    assert {"resnet50d", "resnetaa50d", "resnetblur50d"} <= set(found.candidates)
    blurred = find_architecture(state, ["best", "resnetblur50d_run3"])
    assert blurred is not None
    assert blurred.name == "resnetblur50d"


COMMON = {
    "resnet18": (("resnetblur18",), "resnet18"),
    "resnet50": (("resnetaa50", "resnetblur50"), "resnet50"),
    "mobilenetv3_large_100": ((), None),  # four published weights against one of tf_
    "efficientnet_b0": ((), None),  # two against four
}


@pytest.mark.parametrize("name", COMMON)
def test_a_function_that_nearly_everybody_uses_is_taken(name: str) -> None:
    rare, chosen = COMMON[name]
    found = find_architecture(shapes(name))
    assert found is not None
    assert (found.name, found.rare_names) == (chosen, rare)
    for other in rare:
        hinted = find_architecture(shapes(name), [f"my_{other}_run"])
        assert hinted is not None
        assert (hinted.name, hinted.rare_names) == (other, ())


def test_torchvision_is_known_by_its_own_names() -> None:
    found = find_architecture(shapes("torchvision:squeezenet1_1", 10))
    assert found is not None
    assert (found.name, found.class_count) == ("torchvision:squeezenet1_1", 10)


@pytest.mark.parametrize("size", [224, 384])
def test_positions_tell_the_image_size(size: int) -> None:
    name = f"deit_base_patch16_{size}"
    found = find_architecture(shapes(name), ["deit_base"])
    assert found is not None
    assert name in found.candidates
    assert all(str(size) in candidate for candidate in found.candidates)


def test_another_image_size_is_the_same_trunk() -> None:
    state = {**shapes("deit_base_patch16_224"), "pos_embed": (1, 325, 768)}
    found = find_architecture(state)
    assert found is not None
    assert {"deit_base_patch16_224", "deit_base_patch16_384"} <= set(found.candidates)


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"": ()},
        {".": (1,), "..": (2,), "a..b": ()},
        {"head.weight": ()},
        {"module." * 500 + "weight": (3, 3)},
        {"\ud800.weight": (10**30, -1), "\n": (0,)},
        {f"a.a.a.a.a.head.{i}.fc.weight": (i,) for i in range(9_999)},
        {f"{i}": (i,) for i in range(1_000_000)},
    ],
    ids=map(str, range(8)),
)
def test_hostile_shapes_are_no_architecture(state: Shapes) -> None:
    assert find_architecture(state, ["resnet50"]) is None


def test_an_unknown_network_is_not_named() -> None:
    state = shapes("resnet18")
    wider = {**state, "layer1.0.conv1.weight": (65, 64, 3, 3)}
    deeper = {**state, "layer5.0.conv1.weight": (64, 64, 3, 3)}
    assert find_architecture(wider) is None
    assert find_architecture(deeper) is None
    assert (
        find_architecture({"conv.weight": (8, 3, 3, 3), "fc.weight": (2, 8)}, ["resnet18"]) is None
    )


def test_the_index_is_of_the_installed_timm() -> None:
    made_with = load_signature_index().versions["timm"]
    if timm.__version__ != made_with:
        pytest.skip(f"the index is of timm {made_with}, this is {timm.__version__}")
    assert set(timm.list_models()) <= set(names())


def test_the_index_is_small_and_of_one_line_a_trunk() -> None:
    text = recognition.SIGNATURES_FILE.read_text(encoding="utf-8")
    assert len(text) < 150_000
    assert (
        len(load_signature_index().entries_by_trunk)
        < text.count("\n")
        < len(load_signature_index().entries_by_trunk) + 99
    )
