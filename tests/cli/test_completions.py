"""What the shell offers after Tab, and that it need not wait for torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from camcli.cli import completions
from camcli.methods.registry import METHODS

PROGRAM = """
import sys
from camcli.cli.app import main
try:
    main()
finally:
    sys.stderr.write(str(sorted({"torch", "timm", "numpy"} & set(sys.modules))))
"""


def complete(words: str) -> list[str]:
    """What bash is given after these words."""
    shell = {
        "_CAMCLI_COMPLETE": "complete_bash",
        "COMP_WORDS": f"camcli {words}",
        "COMP_CWORD": str(len(words.split(" "))),
    }
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env={**os.environ, **shell},
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "[]")
    return ran.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    {
        "exp": ["explain", "export"],
        "evaluate lo": ["localization"],
        "explain --method gradcam-": ["gradcam-elementwise"],
        "explain -m cam,layer": ["cam,layercam"],
        "compare -m all": ["all", "all-cheap"],
        "explain --model vit_lite": ["vit_lite0"],
        "layers tscam_vit_l": ["tscam_vit_lite0"],
        "explain --model resnet10": None,
        "compare --layers stage1": ["stage1", "stage1..5"],
        "explain -l l": ["last"],
        "explain --fit ten": ["tencrop"],
        "methods tsc": ["tscam"],
        "methods --format js": ["json", "jsonl"],
        "layers --format js": ["json", "jsonl"],
        "models --format js": ["json"],
        "explain --sho": ["--show"],
        "train tscam --teacher resnetv2_101": None,
        "explain --method none-such": [],
    }.items(),
)
def test_values_are_offered_without_torch(words: str, offered: list[str] | None) -> None:
    found = complete(words)
    if offered is None:  # timm's list grows
        start = words.split(" ")[-1]
        assert found
        assert all(name.startswith(start) for name in found)
    else:
        assert found == offered


def test_every_method_is_offered_after_a_comma() -> None:
    assert completions.complete_methods("cam,") == [f"cam,{name}" for name in METHODS]


def test_architectures_are_offered_once_each() -> None:
    names = completions.load_architecture_names()
    assert len(names) > 1000
    assert len({*names}) == len(names)
    assert {"vit_base_patch16_224", "torchvision:alexnet"} <= {*names}
