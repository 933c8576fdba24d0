"""The packages of camcli: imports only go down this list."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "camcli"
# io and methods stand side by side: neither imports the other.
FLOORS = (
    ("core",),
    ("io", "methods"),
    ("models", "review"),
    ("engine",),
    ("runs",),
    ("evaluation",),
    ("training",),
    ("api",),
    ("cli",),
)
FLOOR = {package: number for number, floor in enumerate(FLOORS) for package in floor}
FILES = sorted(p for p in ROOT.rglob("*.py") if p.name != "__main__.py" and p.parent != ROOT)


def package_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def imported_packages(path: Path) -> set[str]:
    """The packages of camcli that a file imports, anywhere in it."""
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
    own = package_of(path)
    others = imported_packages(path) - {own}
    up = {name for name in others if FLOOR[name] >= FLOOR[own]}
    assert not up, f"{path} imports {up}, which do not stand below {own}"


def test_every_package_is_listed() -> None:
    assert {p.name for p in ROOT.iterdir() if (p / "__init__.py").exists()} == FLOOR.keys()


def test_only_one_module_makes_hooks() -> None:
    hooking = {p.name for p in FILES if "register_forward" in p.read_text()}
    assert hooking == {"hooks.py"}


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


def test_no_two_modules_have_one_name() -> None:
    stems = Counter(path.stem for path in FILES if path.stem != "__init__")
    assert [stem for stem, count in stems.items() if count > 1] == []
