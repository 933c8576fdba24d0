"""Where networks come from: files that say little, folders, caches, functions and programs."""

from __future__ import annotations

import argparse
import csv
import json
import sys
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch
from conftest import SAMPLES, Cli, Ran, lively, noise
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import Tensor, nn

from camcli.core.errors import LayerError, ModelError
from camcli.core.types import Transform
from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.io import labels
from camcli.io.images import load_image
from camcli.io.transforms import compute_view, preprocess_image
from camcli.methods.registry import find_method
from camcli.models import model as models
from camcli.models.model import Model
from camcli.models.zoo import memory
from camcli.models.zoo.resolve import CHECKPOINT_FILE_NAMES, load_network

State = dict[str, Tensor]
Wrap = Callable[[State], Any]
DATA = Path(__file__).parents[3] / "shared" / "data"
CNN, VIT, TV = "test_resnet", "test_vit", "torchvision:"
TIE = ("test_efficientnet_gn", "test_efficientnet_ln")  # the same tensors, another function
NAMES = [f"kind {n}" for n in range(7)]
PHOTO = SAMPLES / "coffee.jpg"


@cache
def made(name: str, classes: int = 7, **options: Any) -> nn.Module:
    """A lively network of either library."""
    if not name.startswith(TV):
        return lively(timm.create_model(name, num_classes=classes, **options)).eval()
    from torchvision.models import get_model

    return lively(get_model(name.removeprefix(TV), num_classes=classes, **options)).eval()


def state(name: str, classes: int = 7, **options: Any) -> State:
    return {k: v.clone() for k, v in made(name, classes, **options).state_dict().items()}


def saved(path: Path | str, content: Any, metadata: dict[str, str] | None = None) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    if str(path).endswith(".safetensors"):
        save_file(content, path, metadata)
    else:
        torch.save(content, path)
    return str(path)


def agree(model: Model, network: nn.Module, tolerance: float = 1e-4) -> bool:
    """Whether a model answers as a network does."""
    inputs = noise(2, model.input_size)
    with torch.no_grad():
        wanted, found = network(inputs), model.network(inputs)
    return torch.allclose(found, wanted, atol=tolerance * float(wanted.abs().max()))


def refused(ran: Ran, *words: str) -> None:
    """One line on standard error that says all this, and status 2."""
    assert (ran.status, ran.out) == (2, ""), ran.err
    assert ran.err.startswith("camcli: ")
    assert ran.err.count("\n") == 1, ran.err
    assert [word for word in words if word not in ran.err] == [], ran.err


def under(prefix: str) -> Wrap:
    return lambda s: {f"{prefix}{key}": value for key, value in s.items()}


def headed(trunk: str, head: str) -> Wrap:
    """A trunk under a prefix, and the classifier `fc` under another name."""
    return lambda s: {(head + k[3:] if k[:3] == "fc." else trunk + k): v for k, v in s.items()}


STRAY = torch.ones(7)
WRAPPINGS: dict[str, Wrap] = {
    "bare": lambda s: s,
    "parallel": under("module."),
    "compiled in parallel": under("module._orig_mod."),
    "EMA": lambda s: {"state_dict_ema": s, "epoch": 3},
    "averaged": lambda s: {**under("module.")(s), "n_averaged": torch.tensor(5)},
    "Lightning model": lambda s: {"state_dict": under("model.")(s), "global_step": 9},
    "Lightning net": lambda s: {"state_dict": under("net.")(s), "hyper_parameters": {"lr": 0.1}},
    "a loss of its own": lambda s: {"state_dict": {**under("net.")(s), "criterion.weight": STRAY}},
    "mmpretrain": lambda s: {"state_dict": headed("backbone.", "head.fc.")(s), "meta": {"a": 1}},
    "a Sequential as head": headed("", "fc.1."),
    "that in Lightning": lambda s: under("net.")(headed("", "fc.1.")(s)),
    "half": lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
    "teacher": lambda s: {**under("student.a.")(s), **under("teacher.a.")(s), "center": STRAY},
}


LEFT_OUT = {
    "a loss of its own": "net. are ignored: criterion)",
    "teacher": "student.a. are ignored: teacher, center)",
}


@pytest.mark.parametrize("name", WRAPPINGS)
def test_a_wrapped_file_is_recognised(tmp_path: Path, name: str) -> None:
    model = models.load_model(saved(tmp_path / "run" / "best.pth", WRAPPINGS[name](state(CNN))))
    assert (model.name, len(model.labels.names)) == (CNN, 7)
    assert agree(model, made(CNN), 1e-2 if name == "half" else 1e-4)
    note, _, beside = model.note.partition(" (parts outside ")
    assert note == f"best.pth is a {CNN} of 7 classes"
    assert beside == LEFT_OUT.get(name, "")


RECOGNISED = (
    *("mobilenetv3_small_050", "test_convnext", "test_vit2", "test_coatnet", "resnet10t"),
    *(f"{TV}squeezenet1_1", f"{TV}shufflenet_v2_x0_5", f"{TV}mobilenet_v3_small"),
)


@pytest.mark.parametrize("name", RECOGNISED)
def test_networks_of_both_libraries_are_recognised(tmp_path: Path, name: str) -> None:
    model = models.load_model(saved(tmp_path / "best.pth", state(name, 5)))
    assert (model.name, len(model.labels.names)) == (name, 5)
    assert agree(model, made(name, 5))


def test_auxiliary_classifiers_are_dropped(tmp_path: Path) -> None:
    plain = {"aux_logits": False, "init_weights": False}
    whole = {**state(f"{TV}googlenet", **plain), "aux1.fc1.bias": STRAY}
    model = models.load_model(saved(tmp_path / "best.pth", whole), size=(64, 64))
    assert agree(model, made(f"{TV}googlenet", **plain))


@pytest.mark.parametrize("side", [96, 384])
def test_a_vit_of_another_resolution_is_built_at_it(tmp_path: Path, side: int) -> None:
    path = saved(tmp_path / "best.pth", state(VIT, img_size=side))
    for model in (models.load_model(path), models.load_model(VIT, Path(path))):
        assert model.input_size == (side, side)
        assert agree(model, made(VIT, img_size=side))


UNSET = f"model: {TIE[1]}\nmean: null\nstd: null\ninterpolation: ''\ncrop_pct: null\n"
SAID: dict[str, tuple[str, dict[str, Any], dict[str, str] | None, dict[str, str]]] = {
    "arch": ("best.pth", {"arch": TIE[1]}, None, {}),
    "args": ("best.pth", {"args": argparse.Namespace(model=TIE[1], lr=0.1)}, None, {}),
    "hyper_parameters": ("best.pth", {"hyper_parameters": {"model_name": TIE[1]}}, None, {}),
    "safetensors": ("best.safetensors", {}, {"architecture": TIE[1]}, {}),
    "config.json": ("best.pth", {}, None, {"config.json": f'{{"architecture": "{TIE[1]}"}}'}),
    "args.yaml": ("best.pth", {}, None, {"args.yaml": UNSET}),
    "its own name": (f"{TIE[1]}-epoch3.pth", {}, None, {}),
    "its folder's name": (f"{TIE[1].replace('_', '-')}/best.pth", {}, None, {}),
}


@pytest.mark.parametrize(("name", "inside", "metadata", "beside"), SAID.values(), ids=SAID.keys())
def test_what_is_said_of_a_file_decides_a_tie(
    tmp_path: Path, name: str, inside: Any, metadata: dict[str, str] | None, beside: dict[str, str]
) -> None:
    bare = state(TIE[1])
    content = {"state_dict": bare, **inside} if inside else bare
    path = saved(tmp_path / "run" / name, content, metadata)
    for file, text in beside.items():
        (Path(path).parent / file).write_text(text)
    model = models.load_model(path)
    assert model.name == TIE[1]
    assert agree(model, made(TIE[1]))


def test_a_tie_of_one_function_is_decided_and_said(tmp_path: Path) -> None:
    vit, deit = "vit_tiny_patch16_224", "deit_tiny_patch16_224"
    path = saved(tmp_path / "run" / "best.pth", state(vit, 3))
    model = models.load_model(path)
    assert (model.name, model.transform.mean) == (vit, (0.5, 0.5, 0.5))
    for words in (f"is a {vit} of 3 classes", deit, "mean 0.485", "--checkpoint"):
        assert words in model.note
    renamed = models.load_model(str(Path(path).rename(tmp_path / "run" / f"{deit}.pth")))
    assert renamed.name == deit
    assert renamed.transform.mean == pytest.approx((0.485, 0.456, 0.406))
    said_beside = f"model: {vit}\nmean: [0.1, 0.2, 0.3]\nstd: [1, 1, 1]"
    (tmp_path / "run" / "args.yaml").write_text(said_beside)
    said = models.load_model(str(tmp_path / "run" / f"{deit}.pth"))
    assert (said.name, said.transform.mean) == (vit, (0.1, 0.2, 0.3))
    assert "may also be" not in said.note  # it is known


SETTINGS: dict[str, Any] = {
    "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bicubic", "crop_pct": 1.0
}  # fmt: skip


@pytest.mark.parametrize("file", CHECKPOINT_FILE_NAMES)
def test_a_folder_with_its_settings(tmp_path: Path, file: str) -> None:
    saved(tmp_path / "run" / file, state(CNN))
    config = {"architecture": CNN, "label_names": NAMES, "pretrained_cfg": SETTINGS}
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    model = models.load_model(str(tmp_path / "run"))
    assert (model.name, list(model.labels.names)) == (CNN, NAMES)
    size = (160, 160)
    assert model.transform == Transform(size, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic", 1.0)
    assert agree(model, made(CNN))


CLASSES: dict[str, dict[str, Any]] = {
    "classes": {"classes": NAMES},
    "class_to_idx": {"class_to_idx": {name: n for n, name in reversed([*enumerate(NAMES)])}},
    "id2label": {"config": {"id2label": {str(n): name for n, name in enumerate(NAMES)}}},
    "mmpretrain": {"meta": {"CLASSES": NAMES}},
    "mmengine": {"meta": {"dataset_meta": {"classes": tuple(NAMES)}}},
}


@pytest.mark.parametrize("said", CLASSES.values(), ids=CLASSES.keys())
def test_class_names_in_the_file(tmp_path: Path, said: dict[str, Any]) -> None:
    path = saved(tmp_path / "best.pth", {"state_dict": state(CNN), **said})
    assert list(models.load_model(path).labels.names) == NAMES
    other = saved(tmp_path / "other.pth", {"state_dict": state(CNN, 6), **said})
    assert models.load_model(other).labels.names[0] == "class 0"  # seven names fit no six classes


LAUGHS = "".join(f"a{n}: &a{n} {{args: *a{n - 1}, meta: *a{n - 1}}}\n" for n in range(1, 60))
HOSTILE: dict[str, tuple[str, str]] = {
    "a list for a word": ("config.json", '{"interpolation": ["bicubic"], "architecture": [1]}'),
    "a number too large": ("config.json", '{"mean": [1' + "0" * 400 + ", 0, 0]}"),
    "numbers that are none": ("config.json", '{"mean": [NaN, 0, 0], "std": [0, 1, 1]}'),
    "nested deeply": ("config.json", '{"args": ' * 900 + "{}" + "}" * 900),
    "within itself": ("args.yaml", "args: &a\n  args: &b\n    args: *a\n"),
    "ever more": ("args.yaml", f"a0: &a0 {{mean: 1}}\n{LAUGHS}args: *a59\n"),
    "code": ("args.yaml", "model: !!python/object/apply:os.abort []\n"),
    "no text": ("config.json", "\x00{"),
}


@pytest.mark.parametrize(("name", "text"), HOSTILE.values(), ids=HOSTILE.keys())
def test_settings_that_make_no_sense_are_passed_over(tmp_path: Path, name: str, text: str) -> None:
    path = saved(tmp_path / "best.pth", state(CNN))
    (tmp_path / name).write_text(text)
    assert models.load_model(path).transform.mean == (0.5, 0.5, 0.5)


MODULE = """
import timm, torch
from torchvision.models.segmentation import lraspp_mobilenet_v3_large
number = 3
def small(): return timm.create_model("test_resnet", num_classes=7)
def headless(): return timm.create_model("test_resnet", num_classes=0)
def one(): return timm.create_model("test_resnet", num_classes=1)
def breaks(): raise ValueError("first\\nsecond")
def needs(width): return small()
def text(): return "resnet"
def maps(): return torch.nn.Conv2d(3, 7, 3)
def leaves(): raise SystemExit("usage: train.py")
def segments(): return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None)
class Pair(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = small()
    def forward(self, x):
        return self.inner(x), x.mean()
"""


@pytest.fixture
def home(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Files of every kind in the folder in which camcli runs, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("mine", "broken", "exits"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    Path("mine.py").write_text(MODULE)
    Path("broken.py").write_text("import nowhere_to_be_found\n")
    Path("exits.py").write_text("import sys; sys.exit('usage')\n")
    Path("empty").mkdir()
    bare = state(CNN)
    saved("best.pth", {"state_dict": under("module.")(bare), "classes": NAMES})
    saved("run/tie.pth", state(TIE[0]))
    saved("headless.pth", {k: v for k, v in bare.items() if "fc" not in k})
    saved("unknown.pth", {**bare, "extra.conv.weight": torch.ones(2, 2)})
    return cli


REFUSED: dict[str, tuple[str, ...]] = {
    "run/tie.pth": (*TIE, "--model NAME --checkpoint run/tie.pth"),
    "unknown.pth": ("package.module:function", "--checkpoint unknown.pth"),
    "empty": ("model.safetensors",),
    "best.pt": ("no such file",),
    "nowhere/model.safetensors": ("no such file",),
    "program:nowhere.pt": ("no such file",),
    "program:best.pth": ("best.pth is not a TorchScript or torch.export program",),
    "mine:Pair --checkpoint best.pth": ("does not fit", "inner.conv1"),
    f"{TV}resnet_18": ("did you mean resnet18",),
    f"{TV}lraspp_mobilenet_v3_large": ("is not an image classifier",),
    f"{TV}fasterrcnn_resnet50_fpn": ("is not an image classifier",),
    "hf-hub:org/name": ("not on this machine", "cannot be reached", "--checkpoint FILE"),
    "hf-hub:org/name --checkpoint best.pth": ("model hub cannot be reached", "omit --model"),
    "hf-hub: --checkpoint best.pth": ("write hf-hub:OWNER/NAME",),
    "broken:x": ("broken cannot be imported", "nowhere_to_be_found"),
    "absent:x": ("absent cannot be imported",),
    "exits:x": ("exits cannot be imported",),
    "..mine:x": ("cannot be imported",),
    ":": ("write package.module:function",),
    "mine:smal": ("no 'smal'", "did you mean small"),
    "mine:number": ("int", "must be a function"),
    "mine:breaks": ("raised ValueError: first", "without arguments"),
    "mine:needs": ("TypeError", "without arguments"),
    "mine:leaves": ("SystemExit", "without arguments"),
    "mine:text": ("type str", "must return a torch.nn.Module"),
    "mine:segments": ("is not a classifier",),
}


@pytest.mark.parametrize("given", REFUSED)
def test_what_is_no_model_is_one_line(home: Cli, given: str) -> None:
    refused(home("layers", *given.split(), "--size", "64"), *REFUSED[given])


def test_functions_from_the_current_folder(home: Cli) -> None:
    model = models.load_model("mine:small", Path("best.pth"), size=(64, 64))
    assert list(model.labels.names) == NAMES
    assert agree(model, made(CNN))
    for maker, head in (("Pair", "softmax"), ("one", "sigmoid")):
        asked = ("--model", f"mine:{maker}", "--size", "64", "--output", maker, "--head", head)
        ran = home("explain", PHOTO, *asked, "--method", "eigencam,saliency")
        assert (ran.status, len(ran.lines)) == (0, 2), ran.err
        loaded = models.load_model(f"mine:{maker}", size=(64, 64))
        assert loaded.output_kind == {"Pair": "softmax", "one": "undecided"}[maker]


def test_weights_without_their_classifier_are_an_embedding(home: Cli) -> None:
    model = models.load_model("headless.pth", size=(64, 64))
    assert (model.output_kind, model.labels.names) == ("embedding", ())
    assert "without a classifier" in model.note
    network: Any = made(CNN)
    pooled = network.forward_features(noise(1, (64, 64))).mean(dim=(2, 3))
    assert torch.allclose(model.network(noise(1, (64, 64))), pooled, atol=1e-4)
    for name in ("mine:maps", "mine:headless"):
        ran = home("explain", PHOTO, "--model", name, "--size", "64", "-m", "gradcam")
        assert (ran.status, ran.out) == (2, "")
        error = ran.err.splitlines()[-1]
        assert error.startswith("camcli: ")
        assert "--target like:REFERENCE.jpg" in error
        assert "eigencam" in error


def test_torchvision_from_its_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import get_model_weights

    name = f"{TV}shufflenet_v2_x0_5"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("camcli.models.zoo.library.is_reachable", lambda _address: False)
    with pytest.raises(ModelError, match="--checkpoint FILE"):
        models.load_model(name)
    published: Any = get_model_weights("shufflenet_v2_x0_5").DEFAULT
    file = published.url.rpartition("/")[2]
    saved(tmp_path / "hub" / "checkpoints" / file, state(name, 1000))
    model = models.load_model(name)
    assert model.labels.names[0] == "tench"
    assert model.transform.mean == pytest.approx((0.485, 0.456, 0.406))
    assert agree(model, made(name, 1000))
    own = models.load_model(name, Path(saved(tmp_path / "best.pth", state(name, 5))))
    assert len(own.labels.names) == 5
    assert agree(own, made(name, 5))


@pytest.mark.usefixtures("home")
def test_a_repository_in_the_hubs_cache(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "models--org--name"
    snapshot = folder / "snapshots" / ("0123456789" * 4)
    saved(snapshot / "model.safetensors", state(CNN))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(snapshot.name)
    own = {**SETTINGS, "input_size": [3, 64, 64], "num_classes": 7, "classifier": "fc"}
    config = {"architecture": CNN, "num_classes": 7, "label_names": NAMES, "pretrained_cfg": own}
    (snapshot / "config.json").write_text(json.dumps(config))
    model = models.load_model("hf-hub:org/name")
    assert list(model.labels.names) == NAMES
    size = (64, 64)
    assert agree(model, made(CNN))
    (snapshot / "model.safetensors").unlink()
    with_file = models.load_model("hf-hub:org/name", Path(saved("other.pth", state(CNN, 5))))
    assert len(with_file.labels.names) == 5
    assert agree(with_file, made(CNN, 5))
    assert model.transform == Transform(size, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic", 1.0)


def test_too_big_for_memory(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "read_free_memory", lambda: 2**20)
    ran = cli("layers", "vit_base_patch16_224", "--no-weights")
    refused(ran, "vit_base_patch16_224 needs 0.3 GB", "camcli models vit")


def program(kind: str, path: Path) -> str:
    """The CNN as a program, in one of torch's formats."""
    inputs = noise(2 if kind == "any" else 1, (64, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a format is old
        if kind == "traced":
            traced: Any = torch.jit.trace(made(CNN), inputs)  # type: ignore[no-untyped-call]
            traced.save(str(path))
        else:
            shapes = ({0: torch.export.Dim.DYNAMIC},) if kind == "any" else None
            graph = torch.export.export(made(CNN), (inputs,), dynamic_shapes=shapes)
            torch.export.save(graph, path)
    return str(path)


@pytest.mark.parametrize("kind", ["traced", "one", "any"])
def test_a_program_is_explained_as_its_network_is(cli: Cli, tmp_path: Path, kind: str) -> None:
    path = program(kind, tmp_path / "net.pt2")
    model = models.load_model(f"program:{path}", size=(64, 64))
    plain = models.wrap_network("plain", made(CNN), model.transform)
    wanted = [find_method(name) for name in ("saliency", "occlusion", "integratedgradients")]
    few = {"integratedgradients": {"steps": 4}, "occlusion": {}}
    found = [
        explain_batch(
            m,
            noise(3, (64, 64)),
            plan_requests(m, wanted, options=few),
            lambda x: x.topk(1).indices,
        )
        for m in (model, plain)
    ]
    for (ours,), (theirs,) in zip(*found, strict=True):
        assert torch.equal(ours.target_scores.class_indices, theirs.target_scores.class_indices)
        assert torch.allclose(ours.fused.values, theirs.fused.values, atol=1e-3)
    explained = ("explain", PHOTO, "--model", f"program:{path}", "--size", "64", "--method")
    refused(cli(*explained, "gradcam"), "no layer", "saliency", "occlusion")
    assert cli(*explained, "saliency").status == 0
    with zipfile.ZipFile(path) as source, zipfile.ZipFile("bad.pt2", "w") as copy:
        for item in source.infolist():
            content = source.read(item)
            copy.writestr(item.filename, content if len(content) < 100 else content[:50])
    Path("cut.pt2").write_bytes(Path(path).read_bytes()[:-200])
    for name in ("cut.pt2", "bad.pt2", "program:cut.pt2", "program:bad.pt2"):
        refused(cli("layers", name), name.removeprefix("program:"))


@pytest.mark.parametrize("kind", ["traced", "one"])
def test_nothing_of_a_program_runs_unasked(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = program(kind, Path("best.pt2"))
    for owner in (torch.jit, torch.export, torch):
        monkeypatch.setattr(owner, "load", lambda *_, **__: pytest.fail("it was loaded"))
    refused(cli("layers", path), "runs code from the file", f"--model program:{path}")
    refused(cli("layers", CNN, "--checkpoint", path), "runs code from the file")


def test_a_transform_is_overridden(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Model] = []
    load = models.load_model

    def watched(*given: Any, **named: Any) -> Model:
        seen.append(load(*given, **named))
        return seen[-1]

    monkeypatch.setattr(models, "load_model", watched)
    asked = ("explain", PHOTO, "--model", saved("best.pth", state("test_efficientnet")))
    given = ("--mean", "0.5", "--std", "0.2,0.5,0.7", "--interpolation", "nearest", "--overwrite")
    plain, other = (cli(*asked, *more, "--method", "eigencam") for more in ((), given))
    assert (plain.status, other.status) == (0, 0), other.err
    assert seen[0].transform.mean == pytest.approx((0.485, 0.456, 0.406))
    changed = seen[1].transform
    assert (changed.mean, changed.std) == ((0.5, 0.5, 0.5), (0.2, 0.5, 0.7))
    assert changed.interpolation == "nearest"
    assert len({ran.lines[0]["explanations"][0]["score"] for ran in (plain, other)}) == 2


SENSELESS = {"mean": ["x", "", ".5,.5", "nan", "-0.1", "124"], "std": ["0", ".5,0,.5", "inf", "58"]}
PAIRS = [(f"--{name}={text}", f"--{name}") for name, texts in SENSELESS.items() for text in texts]


@pytest.mark.parametrize(("given", "named"), [*PAIRS, ("--interpolation=cubic", "--interpolation")])
def test_a_transform_that_makes_no_sense(cli: Cli, given: str, named: str) -> None:
    refused(cli("explain", PHOTO, given), named)


def test_the_tree_has_every_layer(cli: Cli) -> None:
    asked = ("layers", VIT, "--no-weights", "--tree")
    ran = cli(*asked)
    assert ran.status == 0, ran.err
    known = [layer.name for layer in models.load_model(VIT, pretrained=False).layers]
    drawn = [line for line in ran.out.splitlines() if " x " in line]
    assert len(drawn) == len(known)
    assert sum(line.endswith("default") for line in drawn) == 1
    rows = {row["layer"]: row for row in cli(*asked, "--format", "jsonl").lines}
    assert set(rows) == set(known)
    assert [name for name, row in rows.items() if row["default"]] == ["blocks.5.norm1"]
    live = {name for name, row in rows.items() if row["gradient"]}
    assert {"patch_embed", "blocks.0", "blocks.4", "blocks.5.norm1"} <= live
    assert not {"blocks.5.norm2", "blocks.5.mlp.fc2", "norm"} & live  # only CLS is classified
    assert sum("gradient zero" in line for line in drawn) == len(rows) - len(live)
    for end in ("a layer: ", "a layer with zero gradient: ", "the whole model: "):
        assert f"methods for {end}" in ran.out
    cnn = cli("layers", CNN, "--no-weights", "--tree").out
    assert "gradcam" in cnn
    assert "gradient zero" not in cnn


def test_layers_of_a_file_and_by_a_pattern(cli: Cli) -> None:
    path = saved("best.pth", state(VIT))
    ran = cli("layers", path, "--format", "jsonl")
    assert (ran.status, ran.err) == (0, f"best.pth is a {VIT} of 7 classes\n")
    assert [row["layer"] for row in ran.lines if row["default"]] == ["blocks.5.norm1"]
    named = cli("explain", PHOTO, "--model", path, "--method=eigencam", "--layers=blocks.*.norm1")
    assert named.lines[0]["layers"] == [f"blocks.{n}.norm1" for n in range(6)]
    with pytest.raises(LayerError, match=r"blocks\.\*\.nothing"):
        plan_requests(models.load_model(path), [find_method("gradcam")], "blocks.*.nothing")


@pytest.mark.parametrize(
    ("classes", "index"), [(11221, 209), (11821, 216), (21841, 359), (21842, 0), (21843, 359)]
)
def test_the_larger_imagenets_have_names(classes: int, index: int) -> None:
    known = labels.create_default_labels(classes)
    assert (len(known.names), known.names[index]) == (classes, "tench")
    assert known.find_class("n01440764") == index


REAL = {
    "vit_tiny_patch16_224_in1k.safetensors": ("vit_tiny_patch16_224", 0.5, 100, 0.75),
    "squeezenet1_1_torchvision.pth": (f"{TV}squeezenet1_1", 0.485, 40, 0.45),
}


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "weights").is_dir(), reason="weights are not at hand")
@pytest.mark.parametrize("file", REAL)
def test_real_files_alone(tmp_path: Path, file: str) -> None:
    name, mean, count, share = REAL[file]
    model = models.load_model(str(DATA / "weights" / file), device="cpu")
    (tmp_path / f"best{Path(file).suffix}").symlink_to(DATA / "weights" / file)
    copied = models.load_model(str(tmp_path / f"best{Path(file).suffix}"), device="cpu")
    for each in (model, copied):
        assert (each.name, each.transform.mean[0]) == (name, mean)
        assert name in each.note
        assert ("may also be deit_tiny_patch16_224" in each.note) == (mean == 0.5)
    photos = DATA / "ilsvrc_val_227"
    with (photos / "boxes.csv").open() as rows:
        truth = {row["image"]: int(row["class_index"]) for row in csv.DictReader(rows)}
    right = 0
    for image, index in list(truth.items())[:count]:
        photo = load_image(photos / image)
        view = compute_view(*photo.size, model.transform, "squash")
        pixels = torch.from_numpy(preprocess_image(photo, view, model.transform))
        right += int(model.network(pixels[None]).argmax()) == index
    assert right / count >= share


@pytest.mark.parametrize(("name", "calls"), [(CNN, 1), (VIT, 2)])
def test_a_network_is_run_no_more_than_needed(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, calls: int
) -> None:
    network = lively(timm.create_model(name, num_classes=7))
    passes: list[int] = []
    network.register_forward_hook(lambda _module, args, _output: passes.append(len(args[0])))
    monkeypatch.setitem(sys.modules, "counted", ModuleType("counted"))
    monkeypatch.setattr(sys.modules["counted"], "network", network, raising=False)
    model = models.load_model("counted:network")
    assert passes == [1] * calls
    plan_requests(model, [find_method("gradcam")])
    assert passes == [1] * (calls + 1)
    photos = [Path(f"{n}.jpg") for n in range(20)]
    for photo in photos:
        photo.symlink_to(PHOTO)
    asked = ("--model", "counted:network", "--method", "gradcam", "--batch-size", "10")
    for count in (2, 20):
        passes.clear()
        ran = cli("explain", *photos[:count], *asked, "--output", f"out{count}")
        assert len(ran.lines) == count, ran.err
        assert [n for n in passes if n > 1] == [min(count, 10)] * -(-count // 10)
        # The default layer is named again where a map is blank; norms that are folded are checked.
        assert passes.count(1) <= calls + 4


def test_a_file_named_after_published_weights_has_their_transform(tmp_path: Path) -> None:
    """Of one architecture timm has weights that want other means: the tag in the name tells."""
    with torch.device("meta"):
        shapes = timm.create_model("mobilenetv3_large_100", num_classes=3).state_dict()
    state = {key: torch.zeros(value.shape) for key, value in shapes.items()}
    tagged = "mobilenetv3_large_100.miil_in21k_ft_in1k"
    save_file(state, tmp_path / f"{tagged}.safetensors")
    built = load_network(str(tmp_path / f"{tagged}.safetensors"), None, None)
    assert built.name == tagged
    assert (built.transform.mean, built.transform.std) == ((0.0,) * 3, (1.0,) * 3)
