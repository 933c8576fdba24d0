"""What `camcli train embedded` does: tell, write, and choose the threshold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from camcli.cli import console
from camcli.core.errors import UsageError, one_line
from camcli.core.types import Failed, Source, Transform
from camcli.evaluation.datasets import registry as datasets
from camcli.io.files import write
from camcli.io.labels import create_default_labels
from camcli.models import model as models
from camcli.models.zoo import builtin as embedded
from camcli.models.zoo import model_card as trained
from camcli.training import validation as judge
from camcli.training.config import LOG_FILE
from camcli.training.distillation import loop as distilling
from camcli.training.distillation.loop import DistillationConfig

if TYPE_CHECKING:
    from torch import Tensor


def run(
    found: Sequence[Source | Failed],
    vit: str | None,
    checkpoint: Path | None,
    boxes: Path | None,
    how: DistillationConfig,
    output: Path,
) -> int:
    """Distil, telling the losses; writes the weights as they ship, and a log."""
    teacher = models.load_model(vit, checkpoint, device="cpu") if vit else None
    photographs = [item for item in found if isinstance(item, Source)]
    console.say(f"{len(photographs)} photographs; features and evidence are computed once")
    with console.progress("looking", 2 * len(photographs), quiet=False) as bar:
        known, failed = distilling.compute_distillation_data(photographs, teacher, how, bar.advance)
    for item in [*(i for i in found if isinstance(i, Failed)), *failed]:
        console.complain(f"{item}; left out")
    log, state = [], {}
    with console.progress("training", how.steps, quiet=False) as bar:
        for report, student in distilling.train_student(known, how):
            told = "  ".join(f"{name} {value:.3f}" for name, value in report.losses.items())
            console.say(f"step {report.step}  {told}")
            log.append(asdict(report))
            state = student.export_state_dict()
            bar.advance(distilling.REPORT_INTERVAL_STEPS)
    file = output / embedded.VIT_WEIGHTS_FILE.name
    write(file, _packed(state, {}))
    if boxes:
        share, threshold = _located(state, boxes, how.workers)
        console.say(f"GT-known {share:.3f} at {threshold:.3f}")
        write(file, _packed(state, {"tscam": threshold}))
    about = {"photographs": len(known.views.image_names), **asdict(how), "log": log}
    write(output / LOG_FILE, json.dumps(about, indent=2).encode())
    console.say(f"written to {one_line(output)}/: {file.name}, {LOG_FILE}")
    return 0


def _located(state: dict[str, Tensor], table: Path, workers: int) -> tuple[float, float]:
    model = models.wrap_network(
        embedded.BUILTIN_TSCAM,
        embedded.assemble_builtin_vit(state, embedded.BUILTIN_TSCAM),
        _transform(),
    )
    place = datasets.DatasetPaths(table)
    items, problems = datasets.create_evaluation_samples(datasets.read_dataset(place), model.labels)
    for problem in problems:
        console.complain(problem)
    known, threshold = judge.compute_gt_known(model, "tscam", items, 32, workers)
    if known is None or threshold is None:
        raise UsageError(f"--boxes {table}: no box is of a photograph and class known here")
    return known, threshold


def _transform() -> Transform:
    """The CNN's."""
    half = (0.5, 0.5, 0.5)
    return Transform(
        (embedded.VIT_INPUT_SIDE, embedded.VIT_INPUT_SIDE), half, half, "bicubic", 0.875
    )


def _packed(state: dict[str, Tensor], thresholds: dict[str, float]) -> bytes:
    """In half precision, which is half the size and changes no answer."""
    names = create_default_labels(embedded.IMAGENET_CLASS_COUNT).names
    card = trained.ModelCard("tscam", embedded.BUILTIN_VIT, names, _transform(), thresholds)
    return trained.serialize_weights({name: value.half() for name, value in state.items()}, card)
