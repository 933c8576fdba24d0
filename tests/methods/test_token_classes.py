"""Networks with a token for each class: the methods that read it, and those that cannot."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import reference
import torch
from reference.maps import Doubles
from small_networks import (
    CLASSES,
    assert_same,
    class_token_model,
    doubles,
    found_by,
    hooks,
    model_of,
    outputs_of,
    photographs,
    recorded,
)
from torch import Tensor

from camcli.core.errors import MethodError
from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.engine.refine_options import parse_refine_options
from camcli.engine.target_rules import TargetColumn
from camcli.methods.registry import find_method
from camcli.models.introspection.attention_modules import disable_fused_attention
from camcli.models.model import Model, wrap_network
from camcli.models.zoo.mctformer import Version

VERSIONS: tuple[Version, ...] = ("1", "2", "plus")
COUNT, GRID, DEPTH = 10, (6, 8), 4  # of `class_token_model`
BLOCKS = {"1": (1, 2, 3), "2": (1, 2, 3), "plus": (0, 1, 2, 3)}
POWERS = {"1": 1.0, "2": 1.0, "plus": 0.5}


def attention_and_scores(
    model: Model, image: Tensor, blocks: Sequence[int]
) -> tuple[list[Doubles], Doubles | None]:
    """What the softmax of these blocks gives, and the maps of the patch classifier."""
    drops = [f"blocks.{n}.attn.attn_drop" for n in blocks]
    names = [*drops, "head"] if hasattr(model.network, "head") else drops
    with (
        disable_fused_attention(list(model.network.modules())),
        outputs_of(model.network, names) as out,
    ):
        model.network(image[None])
    scores = doubles(out["head"][0]) if "head" in out else None
    return [doubles(out[name][0]) for name in drops], scores


def expected_map(
    model: Model, version: Version, image: Tensor, target: int, part: str, blocks: Sequence[int]
) -> Doubles:
    matrices, scores = attention_and_scores(model, image, blocks)
    if part == "cam":
        assert scores is not None
        cam: Doubles = np.maximum(scores[target], 0)
        return cam
    f = None if scores is None or part == "attention" else scores[target]
    return reference.attention.mctformer(matrices, f, target, COUNT, GRID, POWERS[version])


@pytest.mark.parametrize("part", ["fused", "attention", "cam"])
@pytest.mark.parametrize("version", VERSIONS)
def test_mctformer(version: Version, part: str) -> None:
    model = class_token_model(version)
    inputs = photographs(model.input_size)
    if version == "1" and part == "cam":
        with pytest.raises(MethodError, match="version 1 of MCTformer has no patch classifier"):
            found_by(model, "mctformer", inputs, options={"part": part})
        return
    found = found_by(model, "mctformer", inputs, options={"part": part}).fused.values
    for b, target in enumerate(CLASSES):
        expected = expected_map(model, version, inputs[b], target, part, BLOCKS[version])
        assert expected.std() > 0
        assert_same(found[b], expected)


@pytest.mark.parametrize("spec", ["block 0", "block 1..2", "blocks.3"])
def test_chosen_blocks(spec: str) -> None:
    model = class_token_model("2")
    inputs = photographs(model.input_size)
    found = found_by(model, "mctformer", inputs, spec=spec).fused.values
    blocks = {"block 0": [0], "block 1..2": [1, 2], "blocks.3": [3]}[spec]
    for b, target in enumerate(CLASSES):
        assert_same(found[b], expected_map(model, "2", inputs[b], target, "fused", blocks))


def test_it_is_the_default_and_shows_its_parts() -> None:
    model = class_token_model("2")
    inputs = photographs(model.input_size)
    requests = plan_requests(model, [])
    assert [request.method.name for request in requests] == ["mctformer"]
    found = explain_batch(model, inputs, requests, lambda _: torch.tensor(CLASSES)[:, None])[0][0]
    parts = {part.name: part.values for part in found.parts}
    assert list(parts) == ["attention", "cam"]
    assert [layer.name for layer in found.layers] == ["blocks.1", "blocks.2", "blocks.3"]
    rows = torch.stack([layer.values for layer in found.layers]).sum(dim=0)
    assert torch.allclose(parts["attention"], rows, rtol=1e-5)
    fused = parts["attention"] * parts["cam"]
    assert torch.allclose(found.fused.values, fused, rtol=1e-5)


def test_a_contrast_takes_the_difference_of_rows_and_of_class_maps() -> None:
    model = class_token_model("2")
    image = photographs(model.input_size, 1)
    weights = torch.zeros(1, COUNT)
    weights[0, 1], weights[0, 8] = 1.0, -1.0
    column = TargetColumn("1-vs-8", torch.tensor([1]), weights, torch.tensor([True]))
    requests = plan_requests(model, [find_method("mctformer")])
    found = explain_batch(model, image, requests, lambda _: [column])[0][0].fused.values
    matrices, scores = attention_and_scores(model, image[0], BLOCKS["2"])
    assert scores is not None
    one, other = (
        reference.attention.mctformer(matrices, None, token, COUNT, GRID) for token in (1, 8)
    )
    expected = np.maximum(one - other, 0) * np.maximum(scores[1] - scores[8], 0)
    assert_same(found[0], expected, 1e-3)


# --- methods that follow attention


@pytest.mark.parametrize("method", ["chefer", "gradrollout"])
@pytest.mark.parametrize("version", ["1", "2"])
def test_relevance_is_read_at_the_token_of_the_class(version: Version, method: str) -> None:
    model = class_token_model(version)
    inputs = photographs(model.input_size)
    found = found_by(model, method, inputs).fused.values
    names = [f"blocks.{n}.attn.attn_drop" for n in range(DEPTH)]
    for b, target in enumerate(CLASSES):
        with disable_fused_attention(list(model.network.modules())):
            outputs, gradients = recorded(model.network, names, inputs[b], target)
        pairs = [[doubles(t[0]) for t in tensors] for tensors in (outputs, gradients)]
        relevance = getattr(reference.attention, method)(*pairs)
        assert_same(found[b], reference.attention.read(relevance, [target], COUNT, GRID))


@pytest.mark.parametrize(
    ("version", "method", "says"),
    [
        ("1", "attention", "needs one CLS token; mctformer_1 has a token for each class"),
        ("2", "tscam", "needs one CLS token"),
        ("2", "rollout", "this network has a token for each class"),
        ("plus", "rollout", "this network has a token for each class"),
        ("plus", "chefer", "reads class tokens and patches"),
        ("plus", "gradrollout", "reads class tokens and patches"),
        ("1", "legrad", "such classifier"),
        ("2", "cam", "no such map"),
    ],
)
def test_what_has_no_row_to_read_is_refused(version: Version, method: str, says: str) -> None:
    with pytest.raises(MethodError, match=says) as raised:
        plan_requests(class_token_model(version), [find_method(method)])
    assert "\n" not in str(raised.value)


def of_logits(version: Version, logits: str) -> Model:
    model = class_token_model(version)
    network: Any = type(model.network)(10, version, width=128, heads=2, depth=DEPTH, grid=6)
    network.load_state_dict(model.network.state_dict())
    return wrap_network(logits, network, model.transform, logits=logits, head="sigmoid")


def test_the_logits_of_the_patches_can_be_explained() -> None:
    model = of_logits("2", "patch_logits")
    inputs = photographs(model.input_size)
    found = found_by(model, "cam", inputs).fused.values
    bias = model.network.get_submodule("head").bias
    for b, target in enumerate(CLASSES):
        _, scores = attention_and_scores(model, inputs[b], [0])
        assert scores is not None
        assert_same(found[b], scores[target] - float(bias[target]))  # type: ignore[index]
    rows = found_by(model, "rollout", inputs).fused.values
    matrices, _ = attention_and_scores(model, inputs[0], range(DEPTH))
    patches = range(COUNT, COUNT + GRID[0] * GRID[1])
    rolled = reference.attention.rollout(matrices)
    assert_same(rows[0], reference.attention.read(rolled, list(patches), COUNT, GRID))


def test_plus_gives_chefer_the_logits_of_its_class_tokens() -> None:
    requests = plan_requests(of_logits("plus", "class_logits"), [find_method("chefer")])
    assert requests[0].method.name == "chefer"


# --- refinement


@pytest.mark.parametrize("version", VERSIONS)
def test_the_attention_between_patches_spreads_the_map(version: Version) -> None:
    """The authors' step, but with rows of sum 1: the mean over all blocks, heads and no class."""
    model = class_token_model(version)
    inputs = photographs(model.input_size)
    refine = parse_refine_options("affinity:source=attention,sinkhorn=0")
    requests = plan_requests(model, [find_method("mctformer")], refine=refine)
    found = explain_batch(model, inputs, requests, lambda _: torch.tensor(CLASSES)[:, None])[0][0]
    for b, target in enumerate(CLASSES):
        matrices, _ = attention_and_scores(model, inputs[b], range(DEPTH))
        plain = expected_map(model, version, inputs[b], target, "fused", BLOCKS[version])
        spread = np.zeros(GRID[0] * GRID[1])
        for i in range(len(spread)):
            weights = [
                sum(float(head[COUNT + i, COUNT + j]) for matrix in matrices for head in matrix)
                for j in range(len(spread))
            ]
            spread[i] = sum(w * v for w, v in zip(weights, plain.ravel(), strict=True)) / sum(
                weights
            )
        assert_same(found.fused.values[b], spread.reshape(GRID))


# --- what every method owes


@pytest.mark.parametrize("method", ["mctformer", "chefer", "gradcam"])
@pytest.mark.parametrize("version", ["1", "2"])
def test_a_batch_equals_its_singles_and_leaves_nothing_behind(
    version: Version, method: str
) -> None:
    model = class_token_model(version)
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    standing = list(hooks(model.network))  # of the logits
    inputs = photographs(model.input_size)
    together = found_by(model, method, inputs).fused.values
    for b, target in enumerate(CLASSES):
        alone = found_by(model, method, inputs[b : b + 1], [target]).fused.values
        assert (alone[0] - together[b]).abs().max() <= 1e-5 * together[b].abs().max()
    assert list(hooks(model.network)) == standing
    assert all(p.grad is None for p in model.network.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.network.state_dict().items())


@pytest.mark.parametrize("key", ["resnet", "vit", "vit, no CLS but a register"])
def test_other_networks_have_no_such_tokens(key: str) -> None:
    with pytest.raises(MethodError, match=r"needs a token for each class.*[Tt]ry .*gradcam"):
        plan_requests(model_of(key), [find_method("mctformer")])


def test_classes_differ() -> None:
    """Row 0 for every class would be one map."""
    model = class_token_model("1")
    inputs = photographs(model.input_size, 1)
    find = partial(found_by, model, "mctformer", inputs)
    one, other = (find([target]).fused.values for target in (0, 5))
    assert (one - other).abs().max() > 0.01 * one.abs().max()
