"""Help, lists and usage errors must not wait for heavy packages, nor for other commands."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from camcli.cli.lazy_commands import COMMAND_SUMMARIES

PROGRAM = """
import sys
from camcli.cli.app import main
status = main()
packages = {"torch", "timm", "matplotlib", "numpy", "PIL", "scipy"}
heavy = sorted(packages & set(sys.modules))
commands = [m.rpartition(".")[2] for m in sys.modules if m.startswith("camcli.cli.commands.")]
sys.stderr.write(f"\\nSTATUS {status} HEAVY {heavy} COMMANDS {commands}")
"""
# Usage errors that camcli finds in the packages that read data and score maps, with NumPy.
READS_DATA = {
    "no such data set",
    "no data set",
    "nothing to learn from",
    "no class",
    "no such metric",
    "no such metric of faithfulness",
    "no single class",
    "no such weights to train",
    "no such teacher",
}

QUICK = {
    "help": (["--help"], 0),
    "short help": (["-h"], 0),
    "version": (["--version"], 0),
    "layers help": (["layers", "-h"], 0),
    "models help": (["models", "-h"], 0),
    "doctor help": (["doctor", "-h"], 0),
    "diff help": (["diff", "-h"], 0),
    "no run to compare": (["diff", "{empty}", "{empty}"], 2),
    "bad share": (["diff", "{empty}", "{empty}", "--allow", "2/3"], 2),
    "evaluations": (["evaluate", "-h"], 0),
    "trainings": (["train", "-h"], 0),
    "resume and overwrite": (["explain", "{photo}", "--resume", "--overwrite"], 2),
    "explain help": (["explain", "--help"], 0),
    "methods": (["methods"], 0),
    "one method": (["methods", "tscam"], 0),
    "no command": (["explian", "a.jpg"], 2),
    "no such option": (["explain", "{photo}", "--metod", "cam"], 2),
    "no such method": (["explain", "{photo}", "--method", "gradcan"], 2),
    "no such file": (["explain", "missing.jpg"], 2),
    "empty folder": (["explain", "{empty}"], 2),
    "no such choice": (["explain", "{photo}", "--fit", "stretch"], 2),
    "bad threshold": (["explain", "{photo}", "--threshold", "2"], 2),
    "bad size": (["explain", "{photo}", "--size", "big"], 2),
    "bad save": (["explain", "{photo}", "--save", "overlays"], 2),
    "bad setting": (["explain", "{photo}", "--set", "gamma=2"], 2),
    "bad target": (["explain", "{photo}", "--target", "top:0"], 2),
    "bad target list": (["explain", "{photo}", "--target", "@missing.csv"], 2),
    "no such block": (["explain", "{photo}", "--block", "11"], 2),
    "no such block of a range": (["compare", "{photo}", "--block", "0..4"], 2),
    "no number of a block": (["explain", "{photo}", "--block", "norm1"], 2),
    "no blocks": (["explain", "{photo}", "--model", "tf_efficientnet_lite0", "--block", "1"], 2),
    "no input": (["explain"], 2),
    "an image": (["{photo}"], 2),
    "an option twice": (["explain", "{photo}", "--fit", "pad", "--fit", "crop"], 2),
    "no such weights": (["explain", "{photo}", "--model", "best.pth"], 2),
    "no such program": (["explain", "{photo}", "--model", "program:net.bin"], 2),
    "no such checkpoint": (["explain", "{photo}", "--checkpoint", "best.pth"], 2),
    "no such labels": (["explain", "{photo}", "--labels", "names.txt"], 2),
    "no such weights of several": (["compare", "{photo}", "--models", "a.pth,b.pth"], 2),
    "no such weights to list": (["layers", "best.pth"], 2),
    "no such weights to train": (["train", "tscam", "{empty}", "--model", "best.pth"], 2),
    "no such teacher": (["train", "tscam", "{empty}", "--teacher", "best.pth"], 2),
    "no training": (["train", "{empty}"], 2),
    "no evaluation": (["evaluate", "{empty}"], 2),
    "every method": (["methods", "--format", "markdown"], 0),
    "no such smoothing": (["explain", "{photo}", "--smooth", "blur"], 2),
    "too few masks": (["explain", "{photo}", "--method", "rise:masks=0"], 2),
    "no rivals": (["explain", "{photo}", "--target", "finer:0"], 2),
    "merge help": (["merge", "--help"], 0),
    "no shards to merge": (["merge", "{empty}"], 2),
    "no such shard": (["explain", "{photo}", "--shard", "4/4"], 2),
    "no such devices": (["explain", "{photo}", "--devices", "gpu"], 2),
    "export help": (["export", "--help"], 0),
    "no run to export": (["export", "{empty}", "--to", "coco"], 2),
    "no such export": (["export", "{empty}", "--to", "cocoa"], 2),
    "no such box format": (["explain", "{photo}", "--box-format", "cocoa"], 2),
    "compare help": (["compare", "--help"], 0),
    "figure help": (["figure", "--help"], 0),
    "no such column": (["figure", "{photo}", "--columns", "gradcm"], 2),
    "bad width": (["figure", "{photo}", "--width", "wide"], 2),
    "all and one": (["compare", "{photo}", "--method", "all,cam"], 2),
    "evaluate help": (["evaluate", "localization", "--help"], 0),
    "no such data set": (["evaluate", "localization", "missing"], 2),
    "no data set": (["evaluate", "localization", "{empty}"], 2),
    "train help": (["train", "tscam", "--help"], 0),
    "nothing to learn from": (["train", "tscam", "missing"], 2),
    "no class": (["train", "gap", "{empty}"], 2),
    "no such part": (["train", "tscam", "{empty}", "--train", "tail"], 2),
    "no such metric of faithfulness": (
        ["evaluate", "faithfulness", "{photo}", "--metrics", "raod"],
        2,
    ),
    "no single class": (["evaluate", "faithfulness", "{photo}", "--target", "top:2"], 2),
    "no such metric": (["evaluate", "localization", "{empty}", "--fail-under", "gt=1"], 2),
}


# What a run with a built-in network needs no part of.
UNNEEDED = {
    *("timm", "torchvision", "torch._dynamo", "matplotlib", "scipy", "pandas", "jsonschema"),
    *("huggingface_hub", "cv2", "skimage", "rich", "camcli.models.zoo.from_checkpoint"),
}
LIST_MODULES = """
import sys
from camcli.cli.app import main
status = main()
sys.stderr.write(f"\\nSTATUS {status} MODULES {sorted(sys.modules)}")
"""
BUILTIN_RUNS = {
    "the default": [],
    "LayerCAM": ["--method", "layercam", "--target", "top:2"],
    "propagation": ["--method", "lrp"],
    "all outputs but a sheet": ["--save", "overlay,heatmap,grid,boxes,array,map,mask,cutout"],
    "TS-CAM": ["--method", "tscam"],
    "attention": ["--method", "chefer"],
    "the CNN by name": ["--model", "tf_efficientnet_lite0", "--fit", "pad", "--size", "160"],
}


def run_python(program: str, arguments: list[str], folder: Path) -> str:
    """Run a program in a process of its own; returns what it writes to standard error."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    ).stderr


@pytest.mark.parametrize("case", BUILTIN_RUNS)
def test_a_builtin_network_imports_only_what_it_needs(
    case: str, picture: Path, tmp_path: Path
) -> None:
    shown = run_python(LIST_MODULES, ["explain", str(picture), *BUILTIN_RUNS[case]], tmp_path)
    found = re.search(r"\nSTATUS 0 MODULES (\[.*\])$", shown)
    assert found, shown
    modules = {*ast.literal_eval(found[1])}
    assert "torch" in modules
    assert not modules & UNNEEDED


def test_layers_of_a_builtin_network_need_no_timm(tmp_path: Path) -> None:
    shown = run_python(LIST_MODULES, ["layers", "vit_lite0", "--format", "jsonl"], tmp_path)
    found = re.search(r"\nSTATUS 0 MODULES (\[.*\])$", shown)
    assert found, shown
    assert not {*ast.literal_eval(found[1])} & {"timm", "torchvision", "torch._dynamo"}


@pytest.mark.parametrize("case", QUICK)
def test_answers_without_heavy_imports(case: str, picture: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments, status = QUICK[case]
    given = [a.format(photo=picture, empty=empty) for a in arguments]
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *given],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    message, _, verdict = ran.stderr.rpartition("\nSTATUS ")
    own = [arguments[0]] if arguments[0] in COMMAND_SUMMARIES else []
    found = re.fullmatch(r"(\d) HEAVY (\[.*\]) COMMANDS (\[.*\])", verdict)
    assert found
    assert int(found[1]) == status
    allowed = {"numpy", "PIL", "scipy"} if case in READS_DATA else set()
    assert set(ast.literal_eval(found[2])) <= allowed
    # A command with subcommands may have a file for each: evaluate, evaluate_faithfulness.
    assert {name.partition("_")[0] for name in ast.literal_eval(found[3])} == {*own}
    assert "Traceback" not in ran.stderr
    if status == 2:
        assert message.startswith("camcli: ")
        assert len(message.strip().splitlines()) == 1
