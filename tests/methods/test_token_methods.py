"""Methods that read the attention of single heads and blocks, against the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import reference.attention
import torch
from conftest import PHOTOS, Cli
from small_networks import (
    CLASSES,
    QUERIES,
    assert_same,
    attended,
    doubles,
    found_by,
    model_of,
    photographs,
)

from camcli.core.errors import UsageError
from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.methods.option_parsing import parse_methods
from camcli.methods.registry import find_method

# --- the attention of one head


@pytest.mark.parametrize("key", QUERIES)
def test_one_head(key: str) -> None:
    model = model_of(key)
    prefix, _ = QUERIES[key]
    inputs = photographs(model.input_size, 2)
    has_cls = "no CLS" not in key and prefix > 0
    for block, head in (("last", 0), ("1", -1), ("mean", 1)):
        options = {"block": block, "head": str(head)}
        found = found_by(model, "attention", inputs, CLASSES[:2], options=options).fused.values
        grid = (found.shape[1], found.shape[2])
        for b, target in enumerate(CLASSES[:2]):
            matrices, _ = attended(model, inputs[b], target)
            chosen = matrices if block == "mean" else [matrices[-1 if block == "last" else 1]]
            rows = [
                reference.attention.attention_to_patches(m[head][None], prefix, grid, has_cls)
                for m in chosen
            ]
            assert_same(found[b], np.mean(rows, axis=0))


def test_all_heads_of_one_block_are_parts_and_their_mean_is_the_map() -> None:
    model = model_of("vit, 160x224")
    inputs = photographs(model.input_size, 2)
    found = found_by(model, "attention", inputs, CLASSES[:2], "block 4")
    heads = {part.name: part.values for part in found.parts if part.name.startswith("head")}
    assert list(heads) == ["head 0", "head 1", "head 2"]
    matrices, _ = attended(model, inputs[1], CLASSES[1])
    for n, maps in enumerate(heads.values()):
        row = reference.attention.attention_to_patches(matrices[4][n][None], 1, (10, 14))
        assert_same(maps[1], row)
    assert_same(found.fused.values, doubles(torch.stack(list(heads.values())).mean(dim=0)))


@pytest.mark.parametrize("name", ["attention", "attention:head=1"])
def test_of_several_blocks_each_is_shown_for_the_chosen_head(name: str) -> None:
    model = model_of("vit")
    inputs = photographs(model.input_size, 2)
    (method,) = parse_methods(name)
    (request,) = plan_requests(
        model, [method], "block 2..3", options={} if ":" in name else {"attention": {"head": "1"}}
    )
    targets = torch.tensor(CLASSES[:2])[:, None]
    found = explain_batch(model, inputs, [request], lambda _: targets)[0][0]
    assert [m.name for m in found.layers] == ["blocks.2", "blocks.3"]
    assert [m.name for m in found.parts] == ["attention"]
    matrices, _ = attended(model, inputs[1], CLASSES[1])
    for n, maps in zip((2, 3), found.layers, strict=True):
        row = reference.attention.attention_to_patches(matrices[n][1][None], 1, (6, 8))
        assert_same(maps.values[1], row)
    mean = torch.stack([m.values for m in found.layers]).mean(dim=0)
    assert_same(found.fused.values, doubles(mean))


def test_a_head_takes_no_whole_matrices() -> None:
    """The fused kernel stays on, and only the CLS row is computed: no tensor is (N,N)."""
    model = model_of("vit")
    (request,) = plan_requests(
        model, [find_method("attention")], options={"attention": {"head": "1"}}
    )
    (provider_part,) = request.model_parts.values()
    assert not provider_part.fused_modules
    for reduce in provider_part.reducers.values():
        rows = reduce(torch.randn(2, 49, 3 * 64))
        assert rows.shape == (2, 2, 48)


@pytest.mark.parametrize("head", ["2", "-3", "first", "1.0", ""])
def test_a_head_that_does_not_exist(head: str) -> None:
    model = model_of("vit")
    inputs = photographs(model.input_size, 1)
    with pytest.raises(UsageError, match=r"write mean or 0\.\.1, the heads of the block"):
        found_by(model, "attention", inputs, [1], options={"head": head})


def test_heads_on_the_command_line(cli: Cli, tmp_path: Path) -> None:
    photo = PHOTOS[0]
    ran = cli("explain", photo, "--method", "attention", "--set", "head=7")
    assert ran.status != 0
    last = ran.err.strip().splitlines()[-1]
    assert last == "camcli: --set head=7: write mean or 0..2, the heads of the block"
    ran = cli("explain", photo, "--method", "attention:head=0", "--save", "grid")
    assert ran.status == 0
    ran = cli("explain", photo, "--method", "attention", "--block", 2, "--save", "array")
    assert ran.status == 0
    (path,) = tmp_path.rglob("*.npz")
    with np.load(path) as arrays:
        heads = [name for name in arrays if "head" in name]
    assert [name.partition("/")[2] for name in heads] == ["head 0", "head 1", "head 2"]


# --- gradient times attention


@pytest.mark.parametrize("key", QUERIES)
def test_gradientattention(key: str) -> None:
    model = model_of(key)
    prefix, queries = QUERIES[key]
    inputs = photographs(model.input_size, 2)
    for block in ("last", "2"):
        found = found_by(
            model, "gradientattention", inputs, CLASSES[:2], options={"block": block}
        ).fused.values
        grid = (found.shape[1], found.shape[2])
        for b, target in enumerate(CLASSES[:2]):
            matrices, gradients = attended(model, inputs[b], target)
            number = -1 if block == "last" else 2
            expected = reference.attention.gradientattention(matrices[number], gradients[number])
            assert_same(found[b], reference.attention.read(expected, queries, prefix, grid))
        assert found.amax(dim=(1, 2)).min() > 0 or block == "2"


def test_gradientattention_of_chosen_blocks_is_their_mean() -> None:
    model = model_of("vit")
    inputs = photographs(model.input_size, 2)
    found = found_by(model, "gradientattention", inputs, CLASSES[:2], "block 1..3").fused.values
    matrices, gradients = attended(model, inputs[1], CLASSES[1])
    pairs = list(zip(matrices, gradients, strict=True))[1:4]
    each = [reference.attention.gradientattention(*pair) for pair in pairs]
    assert_same(found[1], reference.attention.read(np.mean(each, axis=0), [0], 1, (6, 8)))


def test_gradientattention_of_a_block_that_does_not_exist() -> None:
    model = model_of("vit")
    inputs = photographs(model.input_size, 1)
    with pytest.raises(UsageError, match=r"write last, mean or 0\.\.5"):
        found_by(model, "gradientattention", inputs, [1], options={"block": "6"})
