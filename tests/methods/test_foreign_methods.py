"""Methods that are not camcli's: in a user's own file, and of an installed package."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import invalidate_caches
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PHOTOS, Cli, small
from numpy.typing import NDArray
from torch import Tensor

import camcli
from camcli.cli.commands.methods import load_method_costs
from camcli.core.errors import UsageError
from camcli.methods import method
from camcli.methods.registry import METHODS

# LayerCAM in other words: its arrays are what these must give.
LIKE_LAYERCAM = '''
print("this must not reach standard output")
from camcli.methods import method

@method()
def {name}(activations, gradients, *, gamma: float = 1.0):
    """{name}: LayerCAM to the power of gamma. (B,C,H,W) x2 -> (B,H,W)."""
    return (gradients.clamp(min=0) * activations).sum(dim=1).clamp(min=0) ** gamma

def plain(activations):
    return activations.sum(dim=1)
'''
Install = Callable[[str, str, str], None]
Arrays = dict[str, NDArray[np.float32]]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Afterwards methods, modules and the search path are as they were."""
    methods, modules, path = dict(METHODS), set(sys.modules), list(sys.path)
    yield
    METHODS.clear()
    METHODS.update(methods)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith(("own_", "their_")):
            del sys.modules[name]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package: a module and its entry points for methods."""

    def add(module: str, source: str, points: str) -> None:
        site = tmp_path / f"site-{module}"
        info = site / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{module}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[camcli.methods]\n{points}\n")
        monkeypatch.syspath_prepend(str(site))

    return add


def write_module(folder: Path, module: str, source: str) -> None:
    (folder / f"{module}.py").write_text(source)
    invalidate_caches()


def explain(cli: Cli, picture: Path, name: str, output: str) -> tuple[dict[str, Any], Arrays]:
    """The result line of one method, and its arrays."""
    ran = cli("explain", picture, "--method", name, "--save", "array", "--output", output)
    assert ran.status == 0, ran.err
    (line,) = ran.lines
    with np.load(Path(output) / line["explanations"][0]["files"]["array"]) as held:
        return line, dict(held)


def assert_like_layercam(cli: Cli, picture: Path, found: Arrays, power: float = 1) -> None:
    _, expected = explain(cli, picture, "layercam", f"reference-{power}")
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert values.max() > 0
        np.testing.assert_allclose(found[key], values**power, rtol=1e-5)


def test_a_method_in_the_users_own_file(cli: Cli, picture: Path, tmp_path: Path) -> None:
    write_module(tmp_path, "own_file", LIKE_LAYERCAM.format(name="mycam"))
    line, found = explain(cli, picture, "own_file:mycam", "o")
    assert line["method"] == "mycam"
    assert_like_layercam(cli, picture, found)


def test_it_takes_options_of_its_own(cli: Cli, picture: Path, tmp_path: Path) -> None:
    write_module(tmp_path, "own_options", LIKE_LAYERCAM.format(name="mycam"))
    line, found = explain(cli, picture, "own_options:mycam:gamma=2", "o")
    assert line["method"] == "mycam:gamma=2"
    assert_like_layercam(cli, picture, found, power=2)
    ran = cli("explain", picture, "--method", "own_options:mycam", "--set", "gamma=2", "--output=s")
    assert ran.status == 0, ran.err


def test_it_stands_beside_other_methods(cli: Cli, picture: Path, tmp_path: Path) -> None:
    write_module(tmp_path, "own_beside", LIKE_LAYERCAM.format(name="mycam"))
    ran = cli("compare", picture, "--method", "layercam,own_beside:mycam", "--output", "o")
    assert ran.status == 0, ran.err
    line = json.loads((tmp_path / "o/compare.jsonl").read_text())
    assert [shown["method"] for shown in line["maps"]] == ["layercam", "mycam"]
    assert line["spearman"][0][1] > 0.999


def test_methods_shows_it_when_asked(cli: Cli, tmp_path: Path) -> None:
    write_module(tmp_path, "own_shown", LIKE_LAYERCAM.format(name="mycam"))
    ran = cli("methods", "own_shown:mycam")
    assert ran.status == 0, ran.err
    assert ran.out.startswith("mycam\n\nmycam: LayerCAM to the power of gamma.")
    for text in ("Family: own_shown", "Cost: not measured", "Paper: -", "--set gamma=1.0"):
        assert text in ran.out
    assert "standard output" in ran.err
    assert "standard output" not in ran.out


def test_an_installed_method(cli: Cli, picture: Path, install: Install) -> None:
    install("their_package", LIKE_LAYERCAM.format(name="x"), "their-cam = their_package:x")
    line, found = explain(cli, picture, "Their-CAM", "o")
    assert line["method"] == "their-cam"
    assert_like_layercam(cli, picture, found)
    line, found = explain(cli, picture, "their-cam:gamma=2", "p")
    assert line["method"] == "their-cam:gamma=2"
    assert_like_layercam(cli, picture, found, power=2)


def test_installed_methods_are_listed_and_broken_ones_named(cli: Cli, install: Install) -> None:
    install("their_good", LIKE_LAYERCAM.format(name="mycam"), "theircam = their_good:mycam")
    install("their_broken", "import nothing_of_that_name", "brokencam = their_broken:cam")
    install(
        "their_gradcam", LIKE_LAYERCAM.format(name="gradcam"), "gradcam = their_gradcam:gradcam"
    )
    names = list(METHODS)
    ran = cli("methods", "--format", "jsonl")
    assert ran.status == 0
    assert [line["method"] for line in ran.lines] == [*names, "theircam"]
    assert ran.lines[-1] == {
        **ran.lines[-1],
        "what": "LayerCAM to the power of gamma. (B,C,H,W) x2 -> (B,H,W)",
        "family": "their_good",
        "cost": None,
        "paper": None,
    }
    errors = [line for line in ran.err.splitlines() if line.startswith("camcli: ")]
    assert len(errors) == 2
    assert "brokencam (their_broken:cam) cannot be imported" in errors[0]
    assert "No module named 'nothing_of_that_name'" in errors[0]
    assert "gradcam (their_gradcam:gradcam): method gradcam: camcli.methods.gradient" in errors[1]
    table = cli("methods").out
    assert "theircam" in table
    assert "not measured" in table
    assert "\n| `theircam` | LayerCAM" in cli("methods", "--format", "markdown").out


def test_near_matches_of_installed_names(cli: Cli, picture: Path, install: Install) -> None:
    install("their_near", LIKE_LAYERCAM.format(name="mycam"), "theircam = their_near:mycam")
    ran = cli("explain", picture, "--method", "theircan")
    assert ran.status == 2
    assert "no method 'theircan'; did you mean theircam" in ran.err
    assert "their_near" not in sys.modules


REFUSED = {
    "own_refusal:mycan": "no function 'mycan' in own_refusal; did you mean mycam?",
    "own_refusal:plain": "is not a method: decorate the function with @method",
    "own_refusall:mycam": "no module 'own_refusall' in this folder or among installed packages; "
    "did you mean own_refusal?",
    "own.refusal.:mycam": "write package.module:function",
    "own_refusal:mycam:gamma": "write own_refusal:mycam:KEY=VALUE",
    "own_refusal:mycam:gama=2": "has no option gama (its options: gamma)",
    "rise:masks": "write rise:KEY=VALUE",
}


@pytest.mark.parametrize("name", REFUSED)
def test_mistakes_in_the_name(cli: Cli, picture: Path, tmp_path: Path, name: str) -> None:
    write_module(tmp_path, "own_refusal", LIKE_LAYERCAM.format(name="mycam"))
    assert_refused(cli, picture, name, REFUSED[name])


BROKEN = {
    "own_raises": (
        "raise SystemExit('bye\\nbye')",
        "own_raises:cam cannot be imported (SystemExit",
    ),
    "own_imports": ("import own_missing", "No module named 'own_missing'"),
    "own_input": (
        "from camcli.methods import method\n@method()\ndef cam(activation): ...",
        "method cam: camcli.methods.cam already has a method with this name",
    ),
    "own_unknown": (
        "from camcli.methods import method\n@method()\ndef own(activation): ...",
        "method own: camcli has no input 'activation'; did you mean activations",
    ),
    "own_default": (
        "from camcli.methods import method\n@method()\ndef own(inputs, *, n): ...",
        "method own: the default of option n must be",
    ),
    "own_bare": (
        "from camcli.methods import method\n@method\ndef cam(inputs): ...",
        "write @method() with parentheses",
    ),
    "own_returns": (
        "from camcli.methods import method\n@method(returns='maps')\ndef cam(inputs): ...",
        "returns='maps': choose from map, terms, tokens, concepts",
    ),
}
FAULTS = {
    "own_divides": ("return 1 / 0", "own_divides raised ZeroDivisionError: division by zero"),
    "own_channels": ("return inputs", "own_channels returned torch.float32 (1, 3, 224, 224)"),
    "own_number": ("return 3", "own_number returned int; it must return a tensor of real numbers"),
    "own_complex": ("return inputs.sum(1) * 1j", "own_complex returned torch.complex64"),
    "own_empty": ("return inputs.sum(1)[:, :0]", "own_empty returned torch.float32 (1, 0, 224)"),
    "own_exit": ("raise SystemExit(3)", "own_exit raised SystemExit: 3"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_ones_own_method_is_not_called_a_bug_of_camcli(
    cli: Cli, picture: Path, tmp_path: Path, name: str
) -> None:
    body, message = FAULTS[name]
    write_module(
        tmp_path,
        name,
        f"from camcli.methods import method\n@method()\ndef {name}(inputs):\n    {body}\n",
    )
    ran = cli("explain", picture, "--method", f"{name}:{name}")
    assert ran.status == 2
    assert message in ran.err
    assert "bug" not in ran.err


@pytest.mark.parametrize("module", BROKEN)
def test_mistakes_in_the_file(cli: Cli, picture: Path, tmp_path: Path, module: str) -> None:
    source, message = BROKEN[module]
    write_module(tmp_path, module, source)
    assert_refused(cli, picture, f"{module}:cam", message)


def assert_refused(cli: Cli, picture: Path, name: str, message: str) -> None:
    ran = cli("explain", picture, "--method", name)
    assert (ran.status, ran.out) == (2, "")
    errors = [line for line in ran.err.splitlines() if "standard output" not in line]
    assert len(errors) == 1, ran.err
    assert message in errors[0]


def test_nothing_of_the_current_folder_is_imported_unasked(tmp_path: Path, picture: Path) -> None:
    for module in ("gradcam", "torch", "own_methods", "mycam"):
        write_module(tmp_path, module, f"raise SystemExit('{module} of this folder was imported')")
    program = "from camcli.cli.app import main; raise SystemExit(main())"
    for arguments in (["methods"], ["explain", str(picture), "--method", "mycam"]):
        ran = subprocess.run(
            [sys.executable, "-P", "-c", program, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert "of this folder" not in ran.stderr + ran.stdout
    assert "no method 'mycam'" in ran.stderr


def test_the_users_folder_does_not_hide_modules_afterwards(cli: Cli, tmp_path: Path) -> None:
    write_module(tmp_path, "own_path", LIKE_LAYERCAM.format(name="mycam"))
    before = list(sys.path)
    assert cli("methods", "own_path:mycam").status == 0
    assert sys.path == [*before, str(tmp_path)]


def test_a_users_method_cannot_change_what_others_read() -> None:
    @method()
    def erasing(activations: Tensor, gradients: Tensor) -> Tensor:
        return activations.zero_().sum(1) + gradients.zero_().sum(1)

    model = small("test_resnet")
    _, found = camcli.explain(model, PHOTOS[0], ["erasing", "gradcam"])
    (expected,) = camcli.explain(model, PHOTOS[0], "gradcam")
    assert np.array_equal(found.raw, expected.raw)


@pytest.mark.parametrize("name", ["", "a:b", "x,y", "x=1"])
def test_a_name_that_cannot_be_typed_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="a name must not be empty"):
        method(name=name)


def test_a_notebook_may_define_a_method_again() -> None:
    def define(factor: int) -> None:
        @method()
        def again(inputs: Tensor) -> Tensor:
            return factor * inputs

    define(2)
    define(3)
    assert METHODS["again"].function(torch.ones(1)) == 3
    assert METHODS["again"].family == "test_foreign_methods"
    with pytest.raises(UsageError, match="already has a method with this name"):
        method(name="A-Gain")(lambda inputs: inputs)


def test_every_method_of_camcli_has_a_cost_and_a_paper() -> None:
    assert load_method_costs().keys() == METHODS.keys()
    assert all(m.paper for m in METHODS.values())
