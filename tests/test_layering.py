"""The rooms and the way in which data flows: imports only go down this list."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "camcli"
ORDER = [
    "errors",
    "stream",
    "records",
    "images",
    "sources",
    "draws",
    "components",
    "maps",
    "masks",
    "boxes",
    "taps",
    "replay",
    "families",
    "survey",
    "numbering",
    "layers",
    "heads",
    "attention",
    "rules",
    "biases",
    "checkpoints",
    "trained",
    "embedded",
    "refit",
    "labels",
    "zoo",
    "logits",
    "models",
    "methods",
    "targets",
    "smoothing",
    "plan",
    "suited",
    "needs",
    "assemble",
    "explain",
    "precision",
    "compiling",
    "folding",
    "job",
    "batches",
    "results",
    "earlier",
    "render",
    "outputs",
    "manifest",
    "pipeline",
    "comparison",
    "evaluation",
    "training",
    "cli",
]
FILES = sorted(p for p in ROOT.rglob("*.py") if p.name not in ("__main__.py",))


def room(path: Path) -> str:
    part = path.relative_to(ROOT).parts[0]
    return part.removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The rooms that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        names |= {m.split(".")[1] for m in modules if m.startswith("camcli.")}
    return names - {"__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_go_down(path: Path) -> None:
    if path == ROOT / "__init__.py":
        assert not imported(path)
        return
    own = ORDER.index(room(path))
    up = {name for name in imported(path) if ORDER.index(name) > own}
    assert not up, f"{path} imports {up}, which stand above it"


def test_every_room_is_listed() -> None:
    assert {room(path) for path in FILES} - {"__init__"} == set(ORDER)


def test_only_one_room_makes_hooks() -> None:
    hooking = {p.name for p in FILES if "register_forward" in p.read_text()}
    assert hooking == {"taps.py"}


def test_only_the_console_prints() -> None:
    printing = {
        p.name
        for p in FILES
        for node in ast.walk(ast.parse(p.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    }
    assert printing == {"console.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300
