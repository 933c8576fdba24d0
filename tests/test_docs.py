"""README and docs: commands and examples run, tables match the code, links resolve."""

from __future__ import annotations

import ast
import io
import json
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import timm
import torch
import torchvision
from conftest import SAMPLES, Cli, lively

from camcli.cli.commands.methods import load_method_costs
from camcli.core.types import Transform
from camcli.engine.providers.provider_registry import PROVIDERS
from camcli.methods.registry import METHODS
from camcli.models.zoo import architectures
from camcli.models.zoo import model_card as trained
from camcli.models.zoo import replace_head as refit
from camcli.models.zoo.library import Library, LoadedNetwork
from camcli.models.zoo.mctformer import MCTformer

ROOT = Path(__file__).parent.parent
DOCS = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))
LINKED = ["README.md", *DOCS, "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"]
README_LINES = 130
FIRST_STEPS = ("README.md", "docs/zh.md")  # pages with a table of what to type
PICTURE_BYTES = 150_000
MARKER = r"<!-- run(?:: (?P<file>\S+))? -->\n"
TYPED = re.compile(r"^\|[^|]+\| `(camcli [^`|]+)` \|", re.M)  # "I want … | type …"
FENCE = re.compile(rf"^(?P<run>{MARKER})?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
SUMMARY = re.compile(r"\d+ images? in |results in ")  # on standard error, and never twice the same


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `run` where an HTML comment before it says `run`."""

    page: str
    language: str
    text: str
    run: bool
    file: str | None


def _text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def _blocks(page: str) -> list[Block]:
    return [
        Block(page, found["language"], found["text"], bool(found["run"]), found["file"])
        for found in FENCE.finditer(_text(page))
    ]


BLOCKS = [block for page in ("README.md", *DOCS) for block in _blocks(page)]
PROGRAMS = [block for block in BLOCKS if block.run and block.file is None]
MODULES = {block.file: block.text for block in BLOCKS if block.file}


def _commands() -> dict[str, list[str]]:
    """Each command of a console block or a table with the lines that the page shows below it."""
    found: dict[str, list[str]] = {}
    for block in BLOCKS:
        if block.language == "console":
            for part in re.split(r"^\$ ", block.text, flags=re.M)[1:]:
                command, *shown = part.splitlines()
                found.setdefault(command, []).extend(shown)
    for page in FIRST_STEPS:
        for command in TYPED.findall(_text(page)):
            found.setdefault(command, [])
    return found


COMMANDS = _commands()


def _save_channels(path: Path, channels: int) -> None:
    network = lively(timm.create_model("resnet10t", in_chans=channels, num_classes=3))
    torch.save(network.state_dict(), path)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files that the pages name; published weights are random here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for file, text in MODULES.items():
        (tmp_path / file).write_text(text)
    shutil.copy(SAMPLES / "chelsea.jpg", tmp_path / "cat.jpg")
    shutil.copytree(SAMPLES, tmp_path / "sample_images")
    for name in ("Egyptian cat", "espresso"):
        (tmp_path / "val" / name).mkdir(parents=True)
    shutil.copy(SAMPLES / "chelsea.jpg", tmp_path / "val" / "Egyptian cat")
    shutil.copy(SAMPLES / "coffee.jpg", tmp_path / "val" / "espresso")
    (tmp_path / "val" / "boxes.csv").write_text(
        "image,class,x1,y1,x2,y2\n"
        "Egyptian cat/chelsea.jpg,Egyptian cat,0,0,385,300\n"
        "espresso/coffee.jpg,espresso,77,18,478,388\n"
    )
    (tmp_path / "birds").mkdir()
    shutil.copy(SAMPLES / "rocket.jpg", tmp_path / "birds")
    (tmp_path / "birds" / "boxes.csv").write_text(
        "image,class_index,x1,y1,x2,y2\nrocket.jpg,3,308,125,338,405\n"
    )
    imagenet = tmp_path / "ImageNet_ILSVRC2012"
    (imagenet / "val" / "n04090263").mkdir(parents=True)
    (imagenet / "ILSVRC2012_list").mkdir()
    shutil.copy(SAMPLES / "rocket.jpg", imagenet / "val" / "n04090263")
    (imagenet / "ILSVRC2012_list" / "val_folder_new.txt").write_text(
        "n04090263/rocket.jpg 3 308 125 338 405\n"
    )
    for name in ("chelsea", "coffee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for copy in range(2):
            shutil.copy(SAMPLES / f"{name}.jpg", tmp_path / "photos" / name / f"{copy}.jpg")
    mine = lively(timm.create_model("resnet18", num_classes=3))
    torch.save({"state_dict": mine.state_dict()}, tmp_path / "mine.pth")
    found = torchvision.models.shufflenet_v2_x0_5(num_classes=3)
    torch.save(lively(found).state_dict(), tmp_path / "best.pth")
    (tmp_path / "my_networks.py").write_text(
        "import timm, torch\n"
        "def small():\n    return timm.create_model('resnet10t', num_classes=4)\n"
        "def age():\n    torch.manual_seed(0)  # both directions have a map\n"
        "    return timm.create_model('resnet10t', num_classes=1)\n"
    )
    _save_channels(tmp_path / "xray.pth", 1)
    _save_channels(tmp_path / "satellite.pth", 5)
    np.save(tmp_path / "field.npy", np.random.default_rng(0).random((60, 80, 5)))
    (tmp_path / "names.txt").write_text("cup\nsaucer\nspoon\n")
    trunk = lively(timm.create_model("deit_tiny_patch16_224", num_classes=0)).state_dict()
    head = torch.nn.Conv2d(192, 5, 3, padding=1).state_dict()
    state = trunk | {f"head.{key}": value for key, value in head.items()}
    official = {
        "epoch": 1,
        "best_map": 0.5,
        "state_dict": {f"module.{k}": v for k, v in state.items()},
    }
    torch.save(official, tmp_path / "tscam.pth")
    mctformer = MCTformer(20, "2", width=64, heads=1, depth=3).state_dict()
    torch.save({"model": mctformer}, tmp_path / "MCTformerV2.pth")
    fitted = refit.attach_tscam_head(
        lively(timm.create_model("test_vit")), 2, (160, 160), "test_vit"
    )
    card = trained.ModelCard("tscam", "test_vit", ("cat", "cup"), Transform((160, 160)))
    (tmp_path / "tscam-head").mkdir()
    (tmp_path / "tscam-head" / "model_best.safetensors").write_bytes(
        trained.serialize_weights(fitted.state_dict(), card)
    )

    def random_weights(_: Library, name: str, size: tuple[int, int] | None) -> LoadedNetwork:
        built = architectures.create_untrained(name, size)
        lively(built.network, seed=1)
        return built

    monkeypatch.setattr(Library, "load_pretrained", random_weights)
    known = set(METHODS)
    yield tmp_path
    for name in set(METHODS) - known:
        del METHODS[name]
    for file in MODULES:
        sys.modules.pop(Path(file).stem, None)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_run(
    command: str, cli: Cli, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _, after = command.partition("camcli ")
    if after.startswith("train"):
        shutil.rmtree(workplace / "tscam-head")  # the command after it expects this folder
    if before:  # `find … -print0 |`
        listed = "\0".join(map(str, sorted((workplace / "val").rglob("*.jpg"))))
        monkeypatch.setattr(sys, "stdin", io.StringIO(listed))
    ran = cli(*shlex.split(after.partition(" | ")[0]))
    assert ran.status == 0, ran.err


@pytest.mark.parametrize("command", [c for c, shown in COMMANDS.items() if shown])
def test_the_pages_show_real_output(command: str, cli: Cli, workplace: Path) -> None:
    arguments = shlex.split(command)[1:]
    ran = cli(*arguments, *(["--format", "table"] if arguments[0] == "explain" else []))
    shown = [line for line in COMMANDS[command] if not SUMMARY.match(line)]
    assert ran.out.splitlines() == shown


def test_output_is_shown_for_explain_and_layers() -> None:
    assert COMMANDS["camcli explain sample_images/"]
    assert COMMANDS["camcli layers"]


def test_the_tables_of_the_first_steps_have_commands() -> None:
    typed = {page: TYPED.findall(_text(page)) for page in FIRST_STEPS}
    assert len(typed["README.md"]) >= 8
    assert typed["README.md"] == typed["docs/zh.md"]


def test_the_table_of_methods_is_the_registry(cli: Cli) -> None:
    table = cli("methods", "--format", "markdown").out
    assert len(table.splitlines()) == len(METHODS) + 2
    assert table in _text("docs/methods.md"), "run `make docs`"
    assert load_method_costs().keys() == METHODS.keys()
    for row in table.splitlines()[2:]:
        assert all(cell.strip() for cell in row.split("|")[1:-1]), row


def test_the_short_table_of_methods_is_right() -> None:
    rows = re.findall(r"^\| `(\S+)` \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", _text("README.md"), re.M)
    assert len(rows) >= 12
    for name, works_on, cost in rows:
        assert works_on == ", ".join(METHODS[name].works_on)
        assert cost == f"{load_method_costs()[name]:g}"


@pytest.mark.parametrize("page", ["README.md", "docs/README.md", "docs/methods.md", "docs/zh.md"])
def test_the_pages_count_the_methods(page: str) -> None:
    counts = re.findall(r"(\d+) (?:methods|种方法)", _text(page))
    assert counts
    assert set(counts) == {str(len(METHODS))}


def test_the_table_of_tensors_has_every_provider() -> None:
    text = _text("docs/methods.md").partition("### Tensors that a method can ask for")[2]
    listed = re.findall(r"^\| `(\w+)` \|", text.partition("\n### ")[0], re.M)
    assert sorted(listed) == sorted(PROVIDERS)


def test_the_example_of_a_method_works_as_shown() -> None:
    names: dict[str, object] = {}
    try:
        exec(MODULES["my_methods.py"], names)
        added = METHODS["mycam"]
        ones = torch.ones(1, 2, 3, 3)
        assert added.input_names == ("activations", "gradients")
        assert added.function(ones, ones).tolist() == [[[2.0] * 3] * 3]
    finally:
        METHODS.pop("mycam", None)


def test_every_page_that_should_have_a_program_has_one() -> None:
    assert {"README.md", "docs/zh.md"} <= {block.page for block in PROGRAMS}


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.page)
def test_the_python_examples_run(block: Block, workplace: Path) -> None:
    exec(block.text, {"__name__": "__main__"})
    if "overlay.png" in block.text:
        assert (workplace / "overlay.png").is_file()


def _shape(value: object) -> object:
    """A JSON document with its numbers left out."""
    if isinstance(value, dict):
        return {key: _shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shape(inner) for inner in value]
    return value if isinstance(value, str) else type(value).__name__


def test_the_line_of_results_is_as_shown(cli: Cli, workplace: Path) -> None:
    (shown,) = (block for block in BLOCKS if block.language == "json")
    (line,) = cli("explain", "sample_images/rocket.jpg", "--format", "jsonl").lines
    del line["key"]
    assert _shape(json.loads(shown.text)) == _shape(line)


def test_the_schemas_are_named() -> None:
    schemas = {path.name for path in (ROOT / "camcli").rglob("*.schema.json")}
    assert schemas
    assert schemas == set(re.findall(r"\w+\.schema\.json", _text("docs/outputs.md")))


def _prose(page: str) -> str:
    return FENCE.sub("", _text(page))


def _anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    prose = FENCE.sub("", path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose, re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number, unique = 0, anchor
        while unique in found:
            number += 1
            unique = f"{anchor}-{number}"
        found.add(unique)
    return found


@pytest.mark.parametrize("page", LINKED)
def test_the_links_resolve(page: str) -> None:
    prose = re.sub(r"`[^`\n]*`", "", _prose(page))
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        target, _, anchor = unquote(link).partition("#")
        if re.match(r"\w+:", target):
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        if not path.exists() or (anchor and anchor not in _anchors(path)):
            broken.append(link)
    assert broken == []


def test_the_index_lists_every_page() -> None:
    linked = set(re.findall(r"\]\((\w[\w-]*\.md)\)", _text("docs/README.md")))
    assert {Path(page).name for page in DOCS} - {"README.md"} <= linked


def test_the_readme_is_short() -> None:
    assert len(_text("README.md").splitlines()) <= README_LINES


def test_the_pictures_are_small_and_used() -> None:
    pages = "".join(map(_text, ["README.md", *DOCS]))
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size < PICTURE_BYTES, picture
        assert f"images/{picture.name}" in pages, picture


def test_the_version_is_in_one_place() -> None:
    project = tomllib.loads(_text("pyproject.toml"))
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "camcli.__version__"}
    assigned = {
        target.id: node.value
        for node in ast.parse(_text("camcli/__init__.py")).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    version = ast.literal_eval(assigned["__version__"])  # so that builds need not import camcli
    assert f"\nversion: {version}\n" in _text("CITATION.cff")
    assert f"\n## [{version}] - " in _text("CHANGELOG.md")
