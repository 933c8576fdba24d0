"""Conformer: the official checkpoint's keys and shapes, and its equations written out again."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import lively, noise
from torch import Tensor, nn
from torch.nn import functional as F

from camcli.core.errors import CheckpointError
from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.models import model as models
from camcli.models.zoo.conformer import (
    Conformer,
    create_conformer,
    is_original_conformer,
    is_tscam_conformer,
)

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
TINY = {"width": 128, "heads": 2, "depth": 6, "channel_ratio": 2, "base": 8}

# The official checkpoint of TS-CAM's Conformer-S for 200 classes, read off the authors' code.
OUTER = """
cls_token 1 1 384 | conv1.weight 64 3 7 7 | bn1 = 64 | trans_norm.weight 384 | trans_norm.bias 384
trans_patch_conv.weight 384 64 4 4 | trans_patch_conv.bias 384
trans_cls_head.weight 200 384 3 3 | trans_cls_head.bias 200
conv_cls_head.weight 200 1024 | conv_cls_head.bias 200
"""
BLOCK = """
norm1.weight 384 | norm1.bias 384 | norm2.weight 384 | norm2.bias 384
attn.qkv.weight 1152 384 | attn.qkv.bias 1152 | attn.proj.weight 384 384 | attn.proj.bias 384
mlp.fc1.weight 1536 384 | mlp.fc1.bias 1536 | mlp.fc2.weight 384 1536 | mlp.fc2.bias 384
"""
FCU = """
squeeze_block.conv_project.weight 384 {m} 1 1 | squeeze_block.conv_project.bias 384
squeeze_block.ln.weight 384 | squeeze_block.ln.bias 384
expand_block.conv_project.weight {m} 384 1 1 | expand_block.conv_project.bias {m}
expand_block.bn = {m}
"""
CNN = """
conv1.weight {m} {i} 1 1 | bn1 = {m} | conv2.weight {m} {m} 3 3 | bn2 = {m}
conv3.weight {o} {m} 1 1 | bn3 = {o}
"""
SHORTCUT = "residual_conv.weight {o} {i} 1 1 | residual_bn = {o}"
# step: channels in, channels out, whether each of its two bottlenecks has a shortcut of its own
STEPS = {
    **dict.fromkeys((2, 3, 4), (256, 256, False, False)),
    5: (256, 512, True, False),
    **dict.fromkeys((6, 7, 8), (512, 512, False, False)),
    9: (512, 1024, True, False),
    **dict.fromkeys((10, 11), (1024, 1024, False, False)),
    12: (1024, 1024, False, True),
}


def table(text: str, prefix: str = "", **sizes: int) -> Shapes:
    """`key 1 2 3` is a shape; `key = n` the five tensors of a BatchNorm."""
    shapes: Shapes = {}
    for entry in text.format(**sizes).replace("\n", "|").split("|"):
        key, *numbers = entry.split() or [""]
        if numbers and numbers[0] == "=":
            for name in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{prefix}{key}.{name}"] = (int(numbers[1]),)
            shapes[f"{prefix}{key}.num_batches_tracked"] = ()
        elif key:
            shapes[prefix + key] = tuple(map(int, numbers))
    return shapes


def bottleneck(prefix: str, i: int, o: int, own_shortcut: bool) -> Shapes:
    text = CNN + SHORTCUT if own_shortcut else CNN
    return table(text, f"{prefix}.", i=i, m=o // 4, o=o)


def official() -> Shapes:
    shapes = table(OUTER) | bottleneck("conv_1", 64, 256, True) | table(BLOCK, "trans_1.")
    for n, (i, o, enters, leaves) in STEPS.items():
        shapes |= bottleneck(f"conv_trans_{n}.cnn_block", i, o, enters)
        shapes |= bottleneck(f"conv_trans_{n}.fusion_block", o, o, leaves)
        shapes |= table(FCU, f"conv_trans_{n}.", m=o // 4)
        shapes |= table(BLOCK, f"conv_trans_{n}.trans_block.")
    return shapes


def shapes_of(network: nn.Module) -> Shapes:
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


@cache
def tiny(plain: bool = False, patch: int = 16) -> Conformer:
    """Random weights, and the running statistics of noise.

    What the norms get is so small that a wrong epsilon shows in the logits.
    """
    network = Conformer(5, **TINY, plain=plain, patch=patch)
    lively(network)
    for key, value in network.named_parameters():
        is_norm = value.ndim == 1 and key.endswith("weight") and ".ln." not in key
        if not is_norm and not any(part in key for part in ("qkv", "fc1", "_head")):
            value.data.mul_(0.01)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(noise(8, (64, 64), seed=2))
    return network.eval()


# The equations, from the state dict alone.


class Slow:
    """A Conformer's forward pass as functions of the numbers in its checkpoint."""

    def __init__(self, state: State, heads: int) -> None:
        self.state, self.heads = state, heads
        self.rows: list[Tensor] = []  # of CLS, a block each

    def conv(self, x: Tensor, key: str, stride: int = 1) -> Tensor:
        w = self.state[f"{key}.weight"]
        padding = 0 if w.shape[2] % 2 == 0 else w.shape[2] // 2
        return F.conv2d(x, w, self.state.get(f"{key}.bias"), stride, padding)

    def bn(self, x: Tensor, key: str, eps: float = 1e-6) -> Tensor:
        mean, var, w, b = (
            self.state[f"{key}.{name}"]
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, w, b, eps=eps)

    def ln(self, x: Tensor, key: str, eps: float = 1e-6) -> Tensor:
        w, b = self.state[f"{key}.weight"], self.state[f"{key}.bias"]
        return F.layer_norm(x, (x.shape[-1],), w, b, eps)

    def linear(self, x: Tensor, key: str) -> Tensor:
        return x @ self.state[f"{key}.weight"].T + self.state[f"{key}.bias"]

    def block(self, t: Tensor, key: str) -> Tensor:
        q, k, v = self.linear(self.ln(t, f"{key}.norm1"), f"{key}.attn.qkv").chunk(3, dim=-1)
        parts = zip(*(x.chunk(self.heads, dim=-1) for x in (q, k, v)), strict=True)
        seen = [(torch.softmax(a @ b.mT / a.shape[-1] ** 0.5, dim=-1), c) for a, b, c in parts]
        self.rows.append(torch.stack([row for row, _ in seen]).mean(dim=0)[:, 0, 1:])
        mixed = [row @ c for row, c in seen]
        t = t + self.linear(torch.cat(mixed, dim=-1), f"{key}.attn.proj")
        hidden = F.gelu(self.linear(self.ln(t, f"{key}.norm2"), f"{key}.mlp.fc1"))
        return t + self.linear(hidden, f"{key}.mlp.fc2")

    def cnn(self, x: Tensor, key: str, stride: int = 1, add: Tensor | float = 0.0) -> list[Tensor]:
        a = F.relu(self.bn(self.conv(x, f"{key}.conv1"), f"{key}.bn1")) + add
        b = F.relu(self.bn(self.conv(a, f"{key}.conv2", stride), f"{key}.bn2"))
        c = self.bn(self.conv(b, f"{key}.conv3"), f"{key}.bn3")
        if f"{key}.residual_conv.weight" in self.state:
            x = self.bn(self.conv(x, f"{key}.residual_conv", stride), f"{key}.residual_bn")
        return [F.relu(c + x), b]

    def step(self, x: Tensor, t: Tensor, key: str, pool: int, strides: list[int]) -> list[Tensor]:
        x, inner = self.cnn(x, f"{key}.cnn_block", strides[0])
        down = F.avg_pool2d(self.conv(inner, f"{key}.squeeze_block.conv_project"), pool)
        rows, cols = down.shape[2:]
        told = F.gelu(self.ln(down.flatten(2).permute(0, 2, 1), f"{key}.squeeze_block.ln"))
        t = self.block(torch.cat([t[:, :1], told], dim=1) + t, f"{key}.trans_block")
        up = t[:, 1:].permute(0, 2, 1).reshape(len(t), -1, rows, cols)
        up = self.conv(up, f"{key}.expand_block.conv_project")
        up = F.relu(self.bn(up, f"{key}.expand_block.bn"))
        up = up.repeat_interleave(pool, dim=2).repeat_interleave(pool, dim=3)
        return [self.cnn(x, f"{key}.fusion_block", strides[1], up)[0], t]

    def branches(self, images: Tensor, depth: int) -> tuple[Tensor, Tensor, tuple[int, int]]:
        stem = F.relu(self.bn(self.conv(images, "conv1", 2), "bn1", eps=1e-5))
        stem = F.max_pool2d(stem, 3, 2, 1)
        cut = self.state["trans_patch_conv.weight"].shape[2]
        patches = self.conv(stem, "trans_patch_conv", cut)
        cls = self.state["cls_token"].repeat(len(images), 1, 1)
        t = self.block(torch.cat([cls, patches.flatten(2).permute(0, 2, 1)], dim=1), "trans_1")
        x = self.cnn(stem, "conv_1")[0]
        for n in range(2, depth + 1):
            strides = [2 if n - 1 in (depth // 3, 2 * depth // 3) else 1, 2 if n == depth else 1]
            cut //= strides[0]
            x, t = self.step(x, t, f"conv_trans_{n}", cut, strides)
        return x, self.ln(t, "trans_norm", eps=1e-5), (patches.shape[2], patches.shape[3])

    def logits(self, images: Tensor, depth: int) -> Tensor:
        x, t, grid = self.branches(images, depth)
        conv = self.linear(x.flatten(2).mean(dim=2), "conv_cls_head")
        if self.state["trans_cls_head.weight"].ndim == 2:
            return conv + self.linear(t[:, 0], "trans_cls_head")
        maps = t[:, 1:].permute(0, 2, 1).reshape(len(t), -1, *grid)
        return conv + self.conv(maps, "trans_cls_head").flatten(2).mean(dim=2)


def test_keys_and_shapes_are_the_official_checkpoints() -> None:
    with torch.device("meta"):
        network = Conformer(200)
    assert shapes_of(network) == official()
    assert sum(p.numel() for p in network.parameters()) == 37_159_824


@pytest.mark.parametrize(
    ("ratio", "width", "millions"), [(1, 384, 23.5), (4, 384, 37.7), (6, 576, 83.3)]
)
def test_the_original_has_as_many_parameters_as_its_authors_count(
    ratio: int, width: int, millions: float
) -> None:
    with torch.device("meta"):
        network = Conformer(1000, width=width, heads=width // 64, channel_ratio=ratio, plain=True)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == millions


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(("patch", "size"), [(16, (64, 64)), (16, (48, 80)), (32, (64, 96))])
def test_logits_are_the_equations(plain: bool, patch: int, size: tuple[int, int]) -> None:
    network, images = tiny(plain, patch), noise(2, size)
    with torch.no_grad():
        expected = Slow(network.state_dict(), heads=2).logits(images, depth=6)
        found = network(images)
    assert 0.1 < expected.std() < 10
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def outputs(network: nn.Module, *names: str) -> tuple[State, Tensor]:
    """What these modules, and the network, answer to a noise image."""
    seen: State = {}
    modules = {network.get_submodule(name): name for name in names}

    def keep(module: nn.Module, _inputs: Any, output: Tensor) -> None:
        seen[modules[module]] = output

    hooks = [module.register_forward_hook(keep) for module in modules]
    with torch.no_grad():
        logits = network(noise(2, (64, 64)))
    for hook in hooks:
        hook.remove()
    return seen, logits


def test_the_semantic_map_is_pooled_into_the_logits() -> None:
    seen, logits = outputs(tiny(), "trans_cls_head", "conv_cls_head")
    assert seen["trans_cls_head"].shape == (2, 5, 4, 4)
    assert seen["trans_cls_head"].std() > 0.1
    pooled = seen["trans_cls_head"].mean(dim=(2, 3))
    torch.testing.assert_close(pooled + seen["conv_cls_head"], logits)


@pytest.mark.parametrize("name", ["trans_1", *(f"conv_trans_{n}.trans_block" for n in (2, 6))])
def test_attention_can_be_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From `attn_drop` without the fused kernel, and from `qkv`, which reads what norm1 says."""
    network = tiny()
    attn: Any = network.get_submodule(f"{name}.attn")
    fused = outputs(network, name)
    monkeypatch.setattr(attn, "fused_attn", False)
    norm, qkv, drop = (f"{name}.{part}" for part in ("norm1", "attn.qkv", "attn.attn_drop"))
    seen, logits = outputs(network, name, norm, qkv, drop)
    torch.testing.assert_close(logits, fused[1])
    assert seen[name].shape == (2, 1 + 16, 128)
    torch.testing.assert_close(attn.qkv(seen[norm]).detach(), seen[qkv])
    q, k, _ = seen[qkv].reshape(2, 17, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    rows = (attn.q_norm(q) @ attn.k_norm(k).transpose(2, 3) * attn.scale).softmax(dim=-1)
    torch.testing.assert_close(seen[drop], rows)
    assert rows.std() > 0.01


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("patch", [16, 32])
def test_shapes_tell_the_network(plain: bool, patch: int) -> None:
    network = tiny(plain, patch)
    shapes = shapes_of(network)
    assert (is_tscam_conformer(shapes), is_original_conformer(shapes)) == (not plain, plain)
    again = create_conformer(shapes)
    again.load_state_dict(network.state_dict())
    assert again.grid == (224 // patch, 224 // patch)
    images = noise(1, (64, 64))
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(images), network(images))


def test_counters_of_batches_may_be_missing() -> None:
    shapes = {k: s for k, s in shapes_of(tiny()).items() if "num_batches" not in k}
    assert shapes_of(create_conformer(shapes)) == shapes_of(tiny())


def test_others_are_not_conformers() -> None:
    deit = {"pos_embed": (1, 197, 384), "head.weight": (5, 384, 3, 3)}
    for shapes in ({}, deit, {"trans_cls_head.weight": (5, 384, 3, 3)}):
        assert not is_tscam_conformer(shapes)
        assert not is_original_conformer(shapes)


def without(key: str) -> Callable[[Shapes], Shapes]:
    return lambda shapes: {k: s for k, s in shapes.items() if k != key}


def with_(key: str, *shape: int) -> Callable[[Shapes], Shapes]:
    return lambda shapes: shapes | {key: shape}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (without("conv1.weight"), "conv1.weight is missing"),
        (without("conv_trans_3.cnn_block.conv1.weight"), "2 blocks"),
        (without("conv_trans_4.trans_block.norm1.bias"), "norm1.bias is missing, not (128,)"),
        (with_("trans_cls_head.weight", 5, 128, 3), "trans_cls_head.weight is (5, 128, 3)"),
        (with_("trans_cls_head.weight", 5, 128, 1, 1), "(5, 128, 1, 1), not (5, 128, 3, 3)"),
        (with_("trans_cls_head.weight", 5, 100, 3, 3), "width 100"),
        (with_("trans_cls_head.weight", 5, 64 * 10**6, 3, 3), "not (1, 1, 64000000)"),
        (with_("trans_cls_head.weight", 0, 128, 3, 3), "is (0, 128, 3, 3)"),
        (with_("conv_1.conv3.weight", 12, 4, 1, 1), "8 and 12 channels"),
        (with_("conv1.weight", 8, 4, 7, 7), "conv1.weight is (8, 4, 7, 7), not (8, 3, 7, 7)"),
        (with_("trans_patch_conv.weight", 128, 8, 3, 3), "patches of 12"),
        (with_("conv_cls_head.weight", 6, 64), "conv_cls_head.weight is (6, 64), not (5, 64)"),
    ],
)
def test_nonsense_is_refused_in_one_line(spoil: Callable[[Shapes], Shapes], says: str) -> None:
    with pytest.raises(CheckpointError) as raised:
        create_conformer(spoil(shapes_of(tiny())))
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_from_an_official_file_to_ts_cams_map(tmp_path: Path) -> None:
    """Attention of all blocks, summed, CLS row, times the class's map, as the authors have it."""
    network = tiny()
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state, "best_map": 0.5}, tmp_path / "model_best.pth")
    model = models.load_model(str(tmp_path / "model_best.pth"), size=(64, 96), device="cpu")
    images = noise(2, (64, 96))
    requests = plan_requests(model, [])
    assert [request.method.name for request in requests] == ["tscam"]
    found = explain_batch(model, images, requests, lambda _: torch.tensor([[1], [3]]))[0][0]
    slow = Slow(network.state_dict(), heads=2)
    _, tokens, grid = slow.branches(images, depth=6)
    maps = slow.conv(tokens[:, 1:].permute(0, 2, 1).reshape(2, -1, *grid), "trans_cls_head")
    expected = torch.stack(slow.rows).sum(dim=0).reshape(2, *grid)
    expected *= torch.stack([maps[0, 1], maps[1, 3]])
    torch.testing.assert_close(found.fused.values, expected, rtol=1e-3, atol=1e-4)
    blocks = [layer.name for layer in model.layers if layer.block is not None]
    assert blocks == ["trans_1", *(f"conv_trans_{n}.trans_block" for n in range(2, 7))]
