"""MCTformer: the official checkpoints' keys and shapes, and their equations written out again."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import Cli, lively, noise
from torch import Tensor, nn
from torch.nn import functional as F

from camcli.core.errors import CheckpointError, ModelError
from camcli.engine.plan import plan_requests
from camcli.models import model as models
from camcli.models.zoo.mctformer import (
    UNUSED_KEYS,
    VOC_CLASSES,
    MCTformer,
    Version,
    create_mctformer,
    find_mctformer_version,
)

State = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]
VERSIONS: tuple[Version, ...] = ("1", "2", "plus")
FILE = Path("net.pth")

# The official checkpoints for VOC, read off the authors' code: plus has 28 x 28 patches.
COMMON = """
cls_token 1 20 384 | patch_embed.proj.weight 384 3 16 16 | patch_embed.proj.bias 384
norm.weight 384 | norm.bias 384
"""
OWN: dict[Version, str] = {
    "1": "pos_embed 1 216 384 | head.weight 20 384 | head.bias 20",
    "2": "pos_embed 1 216 384 | head.weight 20 384 3 3 | head.bias 20",
    "plus": (
        "pos_embed 1 197 384 | pos_embed_cls 1 20 384 | pos_embed_pat 1 784 384 | "
        "head.weight 20 384 3 3 | head.bias 20"
    ),
}
BLOCK = """
norm1.weight 384 | norm1.bias 384 | norm2.weight 384 | norm2.bias 384
attn.qkv.weight 1152 384 | attn.qkv.bias 1152 | attn.proj.weight 384 384 | attn.proj.bias 384
mlp.fc1.weight 1536 384 | mlp.fc1.bias 1536 | mlp.fc2.weight 384 1536 | mlp.fc2.bias 384
"""


def table(text: str, prefix: str = "") -> Shapes:
    rows = [entry.split() for entry in text.replace("\n", "|").split("|") if entry.strip()]
    return {prefix + key: tuple(map(int, numbers)) for key, *numbers in rows}


def official(version: Version) -> Shapes:
    shapes = table(COMMON) | table(OWN[version])
    for n in range(12):
        shapes |= table(BLOCK, f"blocks.{n}.")
    return shapes


def shapes_of(network: nn.Module) -> Shapes:
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


@cache
def tiny(version: Version, classes: int = 5) -> MCTformer:
    """Random weights that make every part count."""
    network = MCTformer(classes, version, width=128, heads=2, depth=3, grid=4)
    lively(network)
    for key, value in network.named_parameters():
        if key.startswith(("pos_embed", "cls_token")):
            value.data.mul_(20)
    return network.eval()


def state_of(version: Version, classes: int = 5) -> State:
    """What the authors save: also the weights that their network never reads."""
    network = tiny(version, classes)
    unused: State = {"norm.weight": torch.rand(128), "norm.bias": torch.rand(128)}
    if version == "1":
        unused |= {"head.weight": torch.rand(classes, 128), "head.bias": torch.rand(classes)}
    if version == "plus":
        unused |= {"pos_embed": torch.rand(1, 197, 128)}
    return {**network.state_dict(), **unused}


def save(path: Path, version: Version, classes: int = 5) -> Path:
    torch.save({"model": state_of(version, classes), "epoch": 44}, path)
    return path


# The equations, from the state dict alone.


class Slow:
    """A forward pass as functions of the numbers in a checkpoint, for heads of width 64."""

    def __init__(self, state: State, version: Version) -> None:
        self.state, self.version = state, version
        self.classes, self.width = state["cls_token"].shape[1:]

    def linear(self, x: Tensor, key: str) -> Tensor:
        return x @ self.state[f"{key}.weight"].T + self.state[f"{key}.bias"]

    def norm(self, x: Tensor, key: str) -> Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        scaled = centred / ((centred**2).mean(dim=-1, keepdim=True) + 1e-6).sqrt()
        return scaled * self.state[f"{key}.weight"] + self.state[f"{key}.bias"]

    def block(self, t: Tensor, key: str) -> Tensor:
        q, k, v = self.linear(self.norm(t, f"{key}.norm1"), f"{key}.attn.qkv").chunk(3, dim=-1)
        parts = zip(*(x.chunk(self.width // 64, dim=-1) for x in (q, k, v)), strict=True)
        mixed = [torch.softmax(a @ b.mT / 8, dim=-1) @ c for a, b, c in parts]
        t = t + self.linear(torch.cat(mixed, dim=-1), f"{key}.attn.proj")
        hidden = F.gelu(self.linear(self.norm(t, f"{key}.norm2"), f"{key}.mlp.fc1"))
        return t + self.linear(hidden, f"{key}.mlp.fc2")

    def positions(self, rows: int, cols: int) -> tuple[Tensor, Tensor]:
        if self.version == "plus":
            own, patches = self.state["pos_embed_cls"], self.state["pos_embed_pat"]
            more = 0.0
        else:
            both = self.state["pos_embed"]
            own, patches = both[:, : self.classes], both[:, self.classes :]
            more = 0.1
        side = round(patches.shape[1] ** 0.5)
        if (rows, cols) == (side, side):
            return own, patches
        square = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        scale = ((rows + more) / side, (cols + more) / side)
        large = F.interpolate(square, scale_factor=scale, mode="bicubic")
        assert large.shape[2:] == (rows, cols)
        return own, large.flatten(2).mT

    def tokens(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        weight, bias = (self.state[f"patch_embed.proj.{name}"] for name in ("weight", "bias"))
        maps = F.conv2d(images, weight, bias, stride=weight.shape[2])
        own, of_patches = self.positions(*maps.shape[2:])
        classes = (self.state["cls_token"] + own).repeat(len(images), 1, 1)
        t = torch.cat([classes, maps.flatten(2).mT + of_patches], dim=1)
        for n in range(3):
            t = self.block(t, f"blocks.{n}")
        return t, (maps.shape[2], maps.shape[3])

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        t, grid = self.tokens(images)
        own = t[:, : self.classes].mean(dim=2)
        if self.version == "1":
            return {"logits": own}
        maps = t[:, self.classes :].mT.reshape(len(t), self.width, *grid)
        maps = F.conv2d(maps, self.state["head.weight"], self.state["head.bias"], padding=1)
        if self.version == "2":
            return {"logits": own, "patch_logits": maps.flatten(2).mean(dim=2)}
        pooled = torch.zeros(len(t), self.classes)
        for b in range(len(t)):
            for c in range(self.classes):
                ranked = sorted(maps[b, c].flatten().tolist(), reverse=True)
                weights = [0.996**rank for rank in range(len(ranked))]
                total = sum(w * value for w, value in zip(weights, ranked, strict=True))
                pooled[b, c] = total / sum(weights)
        return {"logits": (own + pooled) / 2, "class_logits": own, "patch_logits": pooled}


@pytest.mark.parametrize("version", VERSIONS)
def test_keys_and_shapes_are_the_official_checkpoints(version: Version) -> None:
    with torch.device("meta"):
        network = MCTformer(20, version, grid=28 if version == "plus" else 14)
    expected = official(version)
    assert {*UNUSED_KEYS[version]} <= expected.keys()
    read = {key: shape for key, shape in expected.items() if key not in UNUSED_KEYS[version]}
    assert shapes_of(network) == read
    assert find_mctformer_version(expected) == version


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [(64, 64), (48, 96), (80, 64)])
def test_logits_are_the_equations(version: Version, size: tuple[int, int]) -> None:
    network, images = tiny(version), noise(2, size)
    with torch.no_grad():
        expected = Slow(network.state_dict(), version).logits(images)
        found = network(images)
    named = found if isinstance(found, dict) else {"logits": found}
    assert named.keys() == expected.keys()
    for name, values in named.items():
        assert expected[name].std() > 0.01
        torch.testing.assert_close(values, expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("version", VERSIONS)
def test_from_the_file_alone(version: Version, tmp_path: Path) -> None:
    model = models.load_model(str(save(tmp_path / "net.pth", version)), device="cpu")
    assert model.input_size == (64, 64)
    assert model.output_kind == "sigmoid"
    assert model.transform.mean == (0.485, 0.456, 0.406)
    assert model.transform.interpolation == "bicubic"
    assert model.labels.names == tuple(f"class {n}" for n in range(5))
    assert [r.method.name for r in plan_requests(model, [])] == ["mctformer"]
    images = noise(2, (64, 64))
    with torch.no_grad():
        found = model.network(images)
        expected = Slow(state_of(version), version).logits(images)["logits"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.to_probabilities(found), expected.sigmoid())
    blocks = [layer for layer in model.layers if layer.block is not None]
    assert [(la.name, la.grid, la.prefix_token_count) for la in blocks] == [
        (f"blocks.{n}", (4, 4), 5) for n in range(3)
    ]


def test_twenty_classes_are_those_of_voc(tmp_path: Path) -> None:
    path = str(save(tmp_path / "net.pth", "2", 20))
    model = models.load_model(path, device="cpu")
    assert model.labels.names == VOC_CLASSES
    assert model.labels.find_class("person") == 14
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)
    assert len(set(VOC_CLASSES)) == 20
    assert "camcli takes them for PASCAL VOC's" in model.note
    (tmp_path / "names.txt").write_text("\n".join(f"own {n}" for n in range(20)))
    other = models.load_model(path, label_file=tmp_path / "names.txt", device="cpu")
    assert other.labels.names[0] == "own 0"


def test_keys_of_a_wrapped_network(tmp_path: Path) -> None:
    state = {f"module.{key}": value for key, value in state_of("2").items()}
    torch.save({"model": state}, tmp_path / "net.pth")
    assert models.load_model(str(tmp_path / "net.pth"), device="cpu").name.startswith("mctformer_2")


def test_another_size(tmp_path: Path) -> None:
    path = str(save(tmp_path / "net.pth", "2"))
    assert models.load_model(path, size=(48, 96), device="cpu").layers[0].grid == (3, 6)
    with pytest.raises(ModelError, match="--size: this MCTformer needs multiples of 16"):
        models.load_model(path, size=(50, 96), device="cpu")


def test_others_are_not_mctformers() -> None:
    tscam = {"cls_token": (1, 1, 384), "pos_embed": (1, 197, 384), "head.weight": (5, 384, 3, 3)}
    deit = {**tscam, "head.weight": (5, 384)}
    pit = {"cls_token": (1, 2, 144), "pos_embed": (1, 144, 31, 31), "head.weight": (5, 576)}
    two = {**deit, "cls_token": (1, 2, 384)}  # two tokens, but another number of classes
    for shapes in ({}, tscam, deit, pit, two, {"cls_token": ()}):
        assert find_mctformer_version(shapes) is None


def without(*keys: str) -> Callable[[Shapes], Shapes]:
    return lambda shapes: {k: s for k, s in shapes.items() if k not in keys}


def with_(**others: tuple[int, ...]) -> Callable[[Shapes], Shapes]:
    return lambda shapes: shapes | {k.replace("__", "."): s for k, s in others.items()}


@pytest.mark.parametrize(
    ("version", "spoil", "says"),
    [
        ("2", without("patch_embed.proj.weight"), "patch_embed.proj.weight is missing"),
        ("2", without("blocks.0.norm1.weight"), "0 blocks"),
        ("2", without("blocks.1.attn.qkv.bias"), "attn.qkv.bias is missing, not (384,)"),
        ("2", without("head.bias"), "head.bias is missing, not (5,)"),
        ("1", with_(pos_embed=(1, 20, 128)), "15 positions of patches are not a square grid"),
        ("1", with_(pos_embed=(1, 4, 128)), "-1 positions of patches"),
        ("1", with_(pos_embed=(1, 5 + 300 * 300, 128)), "90000 positions of patches"),
        ("1", with_(pos_embed=(1, 21)), "pos_embed is (1, 21)"),
        ("2", with_(head__weight=(5, 128, 1, 1)), "(5, 128, 1, 1), not (5, 128, 3, 3)"),
        ("2", with_(head__weight=(5, 100, 3, 3), cls_token=(1, 5, 100)), "width 100"),
        ("2", with_(patch_embed__proj__weight=(128, 3, 16, 8)), "16, 8), not (128, 3, 16, 16)"),
        ("2", with_(patch_embed__proj__weight=(128, 0, 16, 16)), "is (128, 0, 16, 16)"),
        (
            "2",
            with_(
                cls_token=(1, 10**6, 128),
                head__weight=(10**6, 128, 3, 3),
                pos_embed=(1, 10**6 + 16, 128),
            ),
            "1000000 class tokens",
        ),
        ("plus", with_(cls_token=(1, 1, 128)), "has 1 class token; camcli takes MCTformers of 2"),
        ("plus", with_(cls_token=(1, 6, 128)), "not (1, 6, 128)"),
        ("plus", with_(cls_token=(1, 5)), "cls_token is (1, 5)"),
        ("plus", with_(pos_embed_pat=(1, 17, 128)), "17 positions"),
    ],
)
def test_nonsense_is_refused_in_one_line(
    version: Version, spoil: Callable[[Shapes], Shapes], says: str
) -> None:
    with pytest.raises(CheckpointError) as raised:
        create_mctformer(FILE, spoil(shapes_of(tiny(version)) | _unused(version)))
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def _unused(version: Version) -> Shapes:
    return {key: tuple(value.shape) for key, value in state_of(version).items()}


def test_unknown_keys_are_refused(tmp_path: Path) -> None:
    torch.save({"model": {**state_of("2"), "extra.weight": torch.zeros(3)}}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"extra\.weight"):
        models.load_model(str(tmp_path / "net.pth"), device="cpu")


def test_on_the_command_line(cli: Cli, picture: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "MCTformerV2.pth", "2", 20)
    ran = cli("explain", picture, "--model", path, "--output", "o")
    assert ran.status == 0, ran.err
    (line,) = ran.lines
    assert line["method"] == "mctformer"
    assert line["explanations"][0]["class_name"] in VOC_CLASSES
    assert line["layers"] == ["blocks.0", "blocks.1", "blocks.2"]
    refined = ("--refine", "affinity:source=attention,sinkhorn=0")
    assert cli("explain", picture, "--model", path, *refined, "--output", "p").status == 0


def test_a_hostile_file_is_refused_on_the_command_line(
    cli: Cli, picture: Path, tmp_path: Path
) -> None:
    state = state_of("2")
    state["blocks.1.attn.qkv.weight"] = torch.zeros(1).expand(384, 10**7)
    torch.save({"model": state}, tmp_path / "net.pth")
    ran = cli("explain", picture, "--model", tmp_path / "net.pth")
    assert ran.status != 0
    assert len(ran.err.strip().splitlines()) == 1
    assert "is not an MCTformer: blocks.1.attn.qkv.weight is missing" in ran.err
