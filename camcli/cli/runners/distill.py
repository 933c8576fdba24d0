"""What `camcli train embedded` does: tell, write, and choose the threshold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.cli.console import print_error, print_info, show_progress
from camcli.core.errors import UsageError, to_one_line
from camcli.core.types import Failure, ImageSource, Transform
from camcli.evaluation.datasets.reader import DatasetPaths
from camcli.evaluation.datasets.registry import read_dataset
from camcli.evaluation.datasets.samples import create_evaluation_samples
from camcli.io.files import write_file
from camcli.io.labels import create_default_labels
from camcli.models.model import load_model, wrap_network
from camcli.models.zoo.builtin import (
    BUILTIN_TSCAM,
    BUILTIN_VIT,
    IMAGENET_CLASS_COUNT,
    VIT_INPUT_SIDE,
    VIT_WEIGHTS_FILE,
    assemble_builtin_vit,
)
from camcli.models.zoo.model_card import ModelCard, serialize_weights
from camcli.training.config import LOG_FILE
from camcli.training.distillation.loop import (
    REPORT_INTERVAL_STEPS,
    DistillationConfig,
    compute_distillation_data,
    train_student,
)
from camcli.training.validation import compute_gt_known

if TYPE_CHECKING:
    from torch import Tensor


def run_distillation(
    sources: Sequence[ImageSource | Failure],
    vit: str | None,
    checkpoint: Path | None,
    boxes: Path | None,
    config: DistillationConfig,
    output: Path,
) -> int:
    """Distil, telling the losses; writes the weights as they ship, and a log."""
    teacher = load_model(vit, checkpoint, device="cpu") if vit else None
    photographs = [item for item in sources if isinstance(item, ImageSource)]
    print_info(f"{len(photographs)} photographs; features and evidence are computed once")
    with show_progress("looking", 2 * len(photographs), quiet=False) as bar:
        known, failed = compute_distillation_data(photographs, teacher, config, bar.advance)
    for item in [*(i for i in sources if isinstance(i, Failure)), *failed]:
        print_error(f"{item}; left out")
    log, state = [], {}
    with show_progress("training", config.steps, quiet=False) as bar:
        for report, student in train_student(known, config):
            told = "  ".join(f"{name} {value:.3f}" for name, value in report.losses.items())
            print_info(f"step {report.step}  {told}")
            log.append(asdict(report))
            state = student.export_state_dict()
            bar.advance(REPORT_INTERVAL_STEPS)
    file = output / VIT_WEIGHTS_FILE.name
    write_file(file, _pack_weights(state, {}))
    if boxes:
        share, threshold = _choose_threshold(state, boxes, config.workers)
        print_info(f"GT-known {share:.3f} at {threshold:.3f}")
        write_file(file, _pack_weights(state, {"tscam": threshold}))
    about = {"photographs": len(known.views.image_names), **asdict(config), "log": log}
    write_file(output / LOG_FILE, json.dumps(about, indent=2).encode())
    print_info(f"written to {to_one_line(output)}/: {file.name}, {LOG_FILE}")
    return 0


def _choose_threshold(
    state: dict[str, Tensor], box_file: Path, workers: int
) -> tuple[float, float]:
    model = wrap_network(
        BUILTIN_TSCAM,
        assemble_builtin_vit(state, BUILTIN_TSCAM),
        _create_vit_transform(),
    )
    place = DatasetPaths(box_file)
    items, problems = create_evaluation_samples(read_dataset(place), model.labels)
    for problem in problems:
        print_error(problem)
    known, threshold = compute_gt_known(model, "tscam", items, 32, workers)
    if known is None or threshold is None:
        raise UsageError(f"--boxes {box_file}: no box is of a photograph and class known here")
    return known, threshold


def _create_vit_transform() -> Transform:
    """The CNN's."""
    half = (0.5, 0.5, 0.5)
    return Transform((VIT_INPUT_SIDE, VIT_INPUT_SIDE), half, half, "bicubic", 0.875)


def _pack_weights(state: dict[str, Tensor], thresholds: dict[str, float]) -> bytes:
    """In half precision, which is half the size and changes no answer."""
    names = create_default_labels(IMAGENET_CLASS_COUNT).names
    card = ModelCard("tscam", BUILTIN_VIT, names, _create_vit_transform(), thresholds)
    return serialize_weights({name: value.half() for name, value in state.items()}, card)
