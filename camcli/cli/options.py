"""Convert option texts to values, and refuse wrong ones before torch is imported."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from camcli.core.errors import UsageError, to_one_line
from camcli.core.types import FitMode
from camcli.engine.refine_options import RefineOptions, parse_refine_options
from camcli.engine.smoothing import Smoothing, parse_smoothing_options
from camcli.io.writers import SHEET, find_writer
from camcli.methods.option_parsing import parse_options
from camcli.methods.registry import Method
from camcli.models.introspection.selectors import create_layer_specs
from camcli.models.zoo.model_files import check_model_file

if TYPE_CHECKING:
    from camcli.cli.arguments import InputArguments, MethodArguments, ModelArguments
    from camcli.engine.plan import PlanOptions

HeadName = Literal["softmax", "sigmoid", "probabilities", "regression", "embedding"]
OutputFormat = Literal["auto", "table", "jsonl", "quiet"]
MAX_SIZE_PIXELS = 4096  # of an input's side


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The options for loading any network; `input_size` is (H, W) in pixels."""

    checkpoint: Path | None
    labels: Path | None
    head: HeadName | None
    logits: str | None
    input_size: tuple[int, int] | None
    transform_overrides: Mapping[str, Any]
    device: str


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """The methods, their own options, and the options that all methods share.

    `layer_specs` are the rows of layers: each `--layers` and `--block`, or only None.
    """

    methods: Sequence[Method]
    settings: Mapping[str, Mapping[str, Any]]
    layer_specs: Sequence[str | None]
    fusion: str | None
    smoothing: Smoothing
    refine: RefineOptions

    def create_plan_options(self, layer_spec: str | None = None) -> PlanOptions:
        """Convert these options, for some layers, to the options of `camcli.engine.plan`."""
        from camcli.engine.plan import PlanOptions

        return PlanOptions(
            layer_spec=layer_spec,
            fusion=self.fusion,
            options=self.settings,
            smoothing=self.smoothing,
            refine=self.refine,
        )


def parse_model_options(model: ModelArguments, image: InputArguments, device: str) -> ModelOptions:
    """Read the options of a network. Raises UsageError for a wrong value or a missing file."""
    check_model_file(model.model)
    check_file_exists("--checkpoint", model.checkpoint)
    check_file_exists("--labels", model.labels)
    return ModelOptions(
        checkpoint=model.checkpoint,
        labels=model.labels,
        head=model.head,
        logits=model.logits,
        input_size=parse_input_size(image.size),
        transform_overrides=parse_transform_options(image.mean, image.std, image.interpolation),
        device=device,
    )


def parse_method_options(
    methods: Sequence[Method], given: MethodArguments, layers: Sequence[str] | None, fit: FitMode
) -> MethodOptions:
    """Read the options of these methods. Raises UsageError for a wrong value."""
    return MethodOptions(
        methods=methods,
        settings=parse_method_settings(given.set_ or [], methods, given.seed),
        layer_specs=create_layer_specs(layers, given.block),
        fusion=given.fusion,
        smoothing=parse_smoothing_options(given.smooth, given.seed, fit),
        refine=parse_refine_options(given.refine),
    )


def parse_input_size(text: str | None) -> tuple[int, int] | None:
    """Read `224` or `HxW` in pixels as (H, W)."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(re.fullmatch(r"0*[1-9]\d{0,3}", p) for p in parts):
        raise UsageError(f"--size {text}: write 384 or 224x320 (height x width)")
    rows, cols = int(parts[0]), int(parts[-1])
    if max(rows, cols) > MAX_SIZE_PIXELS:
        raise UsageError(f"--size {text}: a side has at most {MAX_SIZE_PIXELS} pixels")
    return rows, cols


def parse_transform_options(
    mean: str | None, std: str | None, interpolation: str | None
) -> dict[str, Any]:
    """The parts of the model's own transform that options replace."""
    given = {
        "mean": _parse_channel_values("--mean", mean, 0),
        "std": _parse_channel_values("--std", std, 1e-6),
        "interpolation": interpolation,
    }
    return {key: value for key, value in given.items() if value is not None}


def _parse_channel_values(
    option: str, text: str | None, minimum: float
) -> tuple[float, ...] | None:
    """Read one number for all channels, or one for each; 1 is white."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(minimum <= value <= 1 for value in values):
        raise UsageError(
            f"{option} {text}: write one number from 0 to 1, or one per channel: 0.485,0.456,0.406"
        )
    return values


def parse_picture_bands(text: str | None) -> tuple[int, ...]:
    """Read `--rgb`: three bands, or one that is shown in grey; 1 is the first."""
    parts = [] if text is None else text.split(",")
    if len(parts) not in (0, 1, 3) or not all(re.fullmatch(r"[1-9]\d{0,3}", p) for p in parts):
        raise UsageError(f"--rgb {text}: write three bands, such as 3,2,1, or one; 1 is the first")
    return tuple(map(int, parts))


def parse_output_kinds(text: str) -> tuple[str, ...]:
    """The kinds of output in a comma-separated list."""
    kinds = dict.fromkeys(part.strip() for part in text.split(",") if part.strip())
    return tuple(kind if kind == SHEET else find_writer(kind).name for kind in kinds)


def parse_method_settings(
    pairs: Sequence[str], selected_methods: Sequence[Method], seed: int = 0
) -> dict[str, Mapping[str, Any]]:
    """Read `--set KEY=VALUE` pairs as options of each method that has them.

    `--seed` sets the option `seed` of every method that has one. Raises UsageError for a key that
    no selected method has.
    """
    given: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--set {pair}: write KEY=VALUE")
        if not any(key in m.options for m in selected_methods):
            has = ", ".join(o for m in selected_methods for o in m.options) or "none"
            names = ", ".join(m.name for m in selected_methods) or "the default method"
            raise UsageError(f"--set {key}: {names} has no such option (options: {has})")
        given[key] = value
    given.setdefault("seed", str(seed))
    return {
        m.name: parse_options(m, {k: v for k, v in given.items() if k in m.options})
        for m in selected_methods
    }


def check_file_exists(option: str, path: Path | None) -> None:
    """Refuse an option whose file does not exist."""
    if path is not None and not os.path.isfile(path):
        raise UsageError(f"{option} {path}: no such file")


def check_path_exists(option: str, path: Path | None) -> None:
    """Refuse an option whose file or folder does not exist."""
    if path is not None and not os.path.exists(path):
        raise UsageError(f"{option} {path}: no such file or folder")


def check_map_folders(folders: Sequence[Path]) -> None:
    """Refuse `--maps` with a folder that does not exist."""
    for folder in folders:
        if not os.path.isdir(folder):
            raise UsageError(f"--maps {folder}: no such folder")


def check_grabcut_available(boxes: str) -> None:
    """Refuse `--boxes grabcut` without OpenCV, which is an optional dependency."""
    if boxes == "grabcut" and find_spec("cv2") is None:
        raise UsageError("--boxes grabcut needs OpenCV: pip install 'camcli[grabcut]'")


def choose_batch_size(requested: int | None, device: str, fit: FitMode) -> int:
    """The requested batch size, or one that fits most machines; ten crops are ten inputs."""
    return requested or (8 if device == "cpu" else 32) // (8 if fit == "tencrop" else 1)


def choose_worker_count() -> int:
    """One thread per core, at most 8, because each thread holds whole pictures."""
    cores = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    return min(8, len(cores))


def check_no_existing_run(
    output: Path | None,
    allowed: bool,
    file_name: str = "results.jsonl",
    remedy: str = "--overwrite",
) -> None:
    """Refuse to write into a folder that holds a run, unless the user allows it."""
    if output is not None and not allowed and os.path.lexists(output / file_name):
        where = to_one_line(output)
        raise UsageError(f"{where} already holds a run: choose another --output, or add {remedy}")


def check_resume_options(overwrite: bool, resume: bool) -> None:
    """Refuse `--overwrite` together with `--resume`."""
    if overwrite and resume:
        raise UsageError("--resume and --overwrite cannot be combined")


def parse_model_names(
    model: str | None, models: str | None, checkpoint: Path | None
) -> Sequence[str | None]:
    """The names of `--model` or `--models`; None stands for a built-in network."""
    listed = [part.strip() for part in (models or "").split(",") if part.strip()]
    if models is not None and not listed:
        raise UsageError("--models is empty; write the names of models, separated by commas")
    for name in listed:
        check_model_file(name, "--models")
    if model and listed:
        raise UsageError("--model and --models cannot be combined")
    if checkpoint and len(listed) > 1:
        raise UsageError(
            "--checkpoint works with one model only; list checkpoint files in --models instead"
        )
    return list(dict.fromkeys(listed)) or [model]
