"""Options that commands share, and their texts to values: what is wrong is said at once.

Knows nothing of models, and must not import torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Option

from camcli.core.errors import UsageError, to_one_line
from camcli.core.types import FitMode
from camcli.engine.smoothing import Smoothing, parse_smoothing
from camcli.io.writers import find_writer
from camcli.methods.options import create_variant, parse_options
from camcli.methods.registry import METHODS, Method, normalize_method_name

OutputFormat = Literal["auto", "table", "jsonl", "quiet"]
MAX_SIZE_PIXELS = 4096  # pixels of an input's side
COMPARISON_FILE = "compare.jsonl"

ModelName = Annotated[
    str | None,
    Option(
        metavar="NAME",
        help="A timm name, torchvision:NAME, hf-hub:ORG/NAME, a checkpoint file, program:FILE, or"
        " package.module:function; else an embedded network.",
    ),
]
Checkpoint = Annotated[
    Path | None, Option(metavar="FILE", help="Weights for --model: .safetensors .pth .pt .bin.")
]
LabelFile = Annotated[
    Path | None, Option(metavar="FILE", help="Class names: one a line, or JSON {index: name}.")
]
Mean = Annotated[
    str | None,
    Option(metavar="M", help="Of the input, 0.5 or 0.485,0.456,0.406; else the model's."),
]
Std = Annotated[str | None, Option(metavar="S", help="Of the input; else the model's.")]
Interpolation = Annotated[
    Literal["nearest", "bilinear", "bicubic", "lanczos"] | None,
    Option(help="How images are resized; else the model's."),
]
Size = Annotated[str | None, Option(metavar="N|HxW", help="Input size; else the model's.")]
Device = Annotated[str, Option(metavar="NAME", help="auto, cpu, cuda, cuda:N or mps.")]
MethodNames = Annotated[
    list[str] | None,
    Option(
        "--method",
        help="See `camcli methods`; may be given several times; NAME:KEY=VALUE sets an option;"
        " package.module:function is one of your own."
        " Else tscam or chefer on ViTs, and gradcam elsewhere.",
    ),
]
Block = Annotated[
    int | None,
    Option(help="Transformer block N, from 0 or -1: the input side of its attention."),
]
FusionName = Annotated[
    Literal["max", "mean", "product", "none"] | None,
    Option("--fusion", help="How layers are joined; by default as the method's paper does."),
]
Settings = Annotated[
    list[str] | None, Option("--set", metavar="KEY=VALUE", help="A method's own option.")
]
Smooth = Annotated[
    str, Option(metavar="SPEC", help="none, augment (mirrored, contrast), noise:N, or eigen.")
]
HeadName = Annotated[
    Literal["softmax", "sigmoid"] | None,
    Option("--head", help="What makes probabilities: sigmoid for multi-label heads."),
]
Seed = Annotated[
    int, Option(min=0, max=2**31, help="For methods and smoothing that draw at random.")
]
Overwrite = Annotated[
    bool,
    Option(
        "--overwrite",
        help="Start over where a run exists: its list and same-named files are replaced.",
    ),
]
Threshold = Annotated[
    str | None,
    Option(
        metavar="T", help="Box level: a share of the maximum, otsu, or p90; else the method's own."
    ),
]
Boxes = Annotated[
    Literal["largest", "all", "grabcut"],
    Option(help="Regions to box; grabcut: the largest of what GrabCut makes of them."),
]
FitName = Annotated[
    FitMode, Option("--fit", help="How the image meets the model's input; tencrop: ten times.")
]
BatchSize = Annotated[
    int | None, Option(min=1, help="Images at a time; halved when memory runs out.")
]
Workers = Annotated[
    int | None, Option(min=1, help="Threads that read and write; else as many as cores, 8 at most.")
]
FormatName = Annotated[
    OutputFormat, Option("--format", help="auto: a table on a terminal, else jsonl.")
]


def parse_threshold(text: str | None) -> str | float | None:
    """`otsu`, a percentile such as `p90`, or a fraction of the maximum in [0, 1)."""
    if text is None or text == "otsu":
        return text
    try:
        value = float(text.removeprefix("p"))
    except ValueError:
        value = -1.0
    if not 0 <= value < (100 if text.startswith("p") else 1):
        raise UsageError(f"--threshold {text}: write a fraction such as 0.2, `otsu`, or `p90`")
    return text if text.startswith("p") else value


def parse_input_size(text: str | None) -> tuple[int, int] | None:
    """`224` or `HxW` in pixels, as (H, W)."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(re.fullmatch(r"0*[1-9]\d{0,3}", p) for p in parts):
        raise UsageError(f"--size {text}: write 384 or 224x320 (height x width)")
    rows, cols = int(parts[0]), int(parts[-1])
    if max(rows, cols) > MAX_SIZE_PIXELS:
        raise UsageError(f"--size {text}: more than {MAX_SIZE_PIXELS} pixels a side")
    return rows, cols


def parse_transform_options(
    mean: str | None, std: str | None, interpolation: str | None
) -> dict[str, Any]:
    """What of the model's own transform is not to be used."""
    given = {
        "mean": _parse_channel_values("--mean", mean, 0),
        "std": _parse_channel_values("--std", std, 1e-6),
        "interpolation": interpolation,
    }
    return {key: value for key, value in given.items() if value is not None}


def _parse_channel_values(
    option: str, text: str | None, minimum: float
) -> tuple[float, ...] | None:
    """One number for all three channels, or three; in units of white."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(minimum <= value <= 1 for value in values):
        raise UsageError(f"{option} {text}: write 0.5, or a number a channel: 0.485,0.456,0.406")
    return values * 3 if len(values) == 1 else values


def parse_output_kinds(text: str) -> tuple[str, ...]:
    """The kinds of output in a comma-separated list."""
    kinds = dict.fromkeys(part.strip() for part in text.split(",") if part.strip())
    return tuple(find_writer(kind).name for kind in kinds)


def parse_methods(names: Sequence[str]) -> list[Method]:
    """The methods of those names, each once; commas part names too, colons a method's options."""
    given = [part.strip() for name in names for part in name.split(",") if part.strip()]
    if not given:
        raise UsageError(f"--method names none; there are {', '.join(METHODS)}")
    return [_parse_method(name) for name in dict.fromkeys(given)]


def _parse_method(text: str) -> Method:
    name, *pairs = text.split(":")
    if pairs and "=" not in pairs[0] and not _is_method_name(name):
        name = f"{name}:{pairs.pop(0)}"  # package.module:function
    for pair in pairs:
        if "=" not in pair:
            raise UsageError(f"--method {text}: write {name}:KEY=VALUE")
    return create_variant(name, dict(pair.split("=", 1) for pair in pairs))


def _is_method_name(name: str) -> bool:
    return normalize_method_name(name) in map(normalize_method_name, METHODS)


def parse_method_settings(
    pairs: Sequence[str], selected_methods: Sequence[Method], seed: int = 0
) -> dict[str, Mapping[str, Any]]:
    """`--set KEY=VALUE` pairs as options of each method; a key must be known to one of them.

    `--seed` is the option `seed` of those that have one.
    """
    given: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--set {pair}: write KEY=VALUE")
        if not any(key in m.options for m in selected_methods):
            has = ", ".join(o for m in selected_methods for o in m.options) or "none"
            names = ", ".join(m.name for m in selected_methods) or "the default method"
            raise UsageError(f"--set {key}: no option of {names} (there are: {has})")
        given[key] = value
    given.setdefault("seed", str(seed))
    return {
        m.name: parse_options(m, {k: v for k, v in given.items() if k in m.options})
        for m in selected_methods
    }


def parse_smoothing_options(spec: str, seed: int, fit: FitMode) -> Smoothing:
    """What `--smooth` names; ten crops are other views too."""
    return replace(parse_smoothing(spec, seed), has_crops=fit == "tencrop")


def check_file_exists(option: str, path: Path | None) -> None:
    """A file that an option names is there, said before anything heavy is loaded."""
    if path is not None and not os.path.isfile(path):
        raise UsageError(f"{option} {path}: no such file")


def check_path_exists(option: str, path: Path | None) -> None:
    """A file or folder that an option names is there."""
    if path is not None and not os.path.exists(path):
        raise UsageError(f"{option} {path}: no such file or folder")


def check_layer_options(layers: object, block: int | None) -> None:
    """`--layers` or `--block`: not both."""
    if layers is not None and block is not None:
        raise UsageError("--layers and --block both choose layers; give one of them")


def check_grabcut_available(boxes: str) -> None:
    """GrabCut is OpenCV's, which is an extra."""
    if boxes == "grabcut" and find_spec("cv2") is None:
        raise UsageError("--boxes grabcut needs OpenCV: pip install 'camcli[grabcut]'")


def choose_batch_size(requested: int | None, device: str, fit: FitMode) -> int:
    """As asked, or what fits most machines; ten crops an image are ten inputs."""
    return requested or (8 if device == "cpu" else 32) // (8 if fit == "tencrop" else 1)


def choose_worker_count() -> int:
    """As many threads as this process has cores, within reason: each holds whole pictures."""
    cores = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    return min(8, len(cores))


def check_no_existing_run(
    output: Path, allowed: bool, file_name: str = "results.jsonl", remedy: str = "--overwrite"
) -> None:
    """Never lose a result: an output folder that holds a run is written only when asked to."""
    if not allowed and os.path.lexists(output / file_name):
        where = to_one_line(output)
        raise UsageError(f"{where} already holds a run: name another --output, or add {remedy}")


def check_resume_options(overwrite: bool, resume: bool) -> None:
    """`--overwrite` or `--resume`: not both."""
    if overwrite and resume:
        raise UsageError("--resume keeps what --overwrite replaces; give one of them")


def parse_model_names(
    model: str | None, models: str | None, checkpoint: Path | None
) -> Sequence[str | None]:
    """The models of `--model` or `--models`; None for the embedded one."""
    listed = [part.strip() for part in (models or "").split(",") if part.strip()]
    if models is not None and not listed:
        raise UsageError("--models names none")
    if model and listed:
        raise UsageError("--model and --models both name models; give one of them")
    if checkpoint and len(listed) > 1:
        raise UsageError("--checkpoint is one model's; with --models name checkpoint files")
    return list(dict.fromkeys(listed)) or [model]
