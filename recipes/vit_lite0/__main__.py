"""Make the built-in transformer anew: python -m recipes.vit_lite0 PHOTOS... --boxes tune.csv."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from camcli.cli.console import print_error, print_info, show_progress
from camcli.cli.options import check_file_exists, check_no_existing_run, choose_worker_count
from camcli.core.errors import CamcliError, to_one_line
from camcli.core.types import Failure, ImageSource
from camcli.io.discovery import find_image_sources
from camcli.io.files import write_file
from camcli.models.model import load_model
from camcli.models.zoo.builtin_names import VIT_WEIGHTS_FILE
from camcli.training.training_config import LOG_FILE
from recipes.vit_lite0.augmentation import DistillationData
from recipes.vit_lite0.training import (
    REPORT_INTERVAL_STEPS,
    DistillationConfig,
    LossReport,
    compute_distillation_data,
    train_student,
)
from recipes.vit_lite0.weights import choose_threshold, pack_weights

USAGE_STATUS = 2
DEFAULTS = DistillationConfig()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = create_parser().parse_args(arguments)
    try:
        run_recipe(options)
    except CamcliError as error:
        print_error(error)
        return USAGE_STATUS
    return 0


def create_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.vit_lite0", description=(__doc__ or "").split(":")[0]
    )
    add = parser.add_argument
    add("photos", nargs="+", help="files, folders, globs; labels are not used")
    add("--vit", metavar="NAME", help="a ViT that also shows where the objects are")
    add("--checkpoint", type=Path, metavar="FILE", help="weights for --vit")
    add("--boxes", type=Path, metavar="CSV", help="boxes that choose the stored threshold")
    add("--steps", type=_at_least(1), default=DEFAULTS.steps, help="of gradient descent")
    add("--batch-size", type=_at_least(2), default=DEFAULTS.batch_size, help="views at a time")
    add("--lr", type=_positive_number, default=DEFAULTS.lr, help="the highest learning rate")
    add(
        "--seed",
        type=_at_least(0),
        default=DEFAULTS.seed,
        help="the same seed gives the same weights",
    )
    add(
        "--workers",
        type=_at_least(1),
        help="threads that read photographs; default: one for each core",
    )
    add("--output", type=Path, default=Path("camcli-train"), metavar="DIR", help="for the files")
    add("--overwrite", action="store_true", help="replace the files of an earlier run")
    return parser


def _at_least(minimum: int) -> Callable[[str], int]:
    """Reads a whole number; argparse reports the ValueError as wrong usage."""

    def whole_number(text: str) -> int:
        if int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text}: write a whole number from {minimum} on")
        return int(text)

    return whole_number


def _positive_number(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: write a positive number")
    return float(text)


def run_recipe(options: argparse.Namespace) -> None:
    """Train, print the losses, and write the weights file and the log."""
    check_file_exists("--checkpoint", options.checkpoint)
    check_file_exists("--boxes", options.boxes)
    check_no_existing_run(options.output, options.overwrite, LOG_FILE)
    sources = find_image_sources(options.photos, [], skip_folder=options.output)
    config = DistillationConfig(
        steps=options.steps,
        batch_size=options.batch_size,
        lr=options.lr,
        seed=options.seed,
        workers=options.workers or choose_worker_count(),
    )
    data = _prepare_data(sources, options.vit, options.checkpoint, config)
    reports, state = _train(data, config)
    weights_file = options.output / VIT_WEIGHTS_FILE.name
    write_file(weights_file, pack_weights(state, {}))
    if options.boxes:
        write_file(weights_file, pack_weights(state, _choose_thresholds(state, options, config)))
    log = {
        "photographs": len(data.views.image_names),
        **asdict(config),
        "log": [asdict(report) for report in reports],
    }
    write_file(options.output / LOG_FILE, json.dumps(log, indent=2).encode())
    print_info(f"written to {to_one_line(options.output)}/: {weights_file.name}, {LOG_FILE}")


def _prepare_data(
    sources: Sequence[ImageSource | Failure],
    vit: str | None,
    checkpoint: Path | None,
    config: DistillationConfig,
) -> DistillationData:
    teacher = load_model(vit, checkpoint, device="cpu") if vit else None
    photographs = [item for item in sources if isinstance(item, ImageSource)]
    print_info(f"{len(photographs)} photographs; their features and maps are computed once")
    with show_progress("preparing", 2 * len(photographs), quiet=False) as bar:
        data, unreadable = compute_distillation_data(photographs, teacher, config, bar.advance)
    for item in [*(item for item in sources if isinstance(item, Failure)), *unreadable]:
        print_error(f"{item}; left out")
    return data


def _train(
    data: DistillationData, config: DistillationConfig
) -> tuple[list[LossReport], dict[str, Tensor]]:
    """The reports, and the weights after the last of them."""
    reports: list[LossReport] = []
    state: dict[str, Tensor] = {}
    with show_progress("training", config.steps, quiet=False) as bar:
        for report, student in train_student(data, config):
            losses = "  ".join(f"{name} {value:.3f}" for name, value in report.losses.items())
            print_info(f"step {report.step}  {losses}")
            reports.append(report)
            state = student.export_state_dict()
            bar.advance(REPORT_INTERVAL_STEPS)
    return reports, state


def _choose_thresholds(
    state: dict[str, Tensor], options: argparse.Namespace, config: DistillationConfig
) -> dict[str, float]:
    score, problems = choose_threshold(state, options.boxes, config.workers)
    for problem in problems:
        print_error(problem)
    print_info(f"GT-known {score.gt_known:.3f} at threshold {score.threshold:.3f}")
    return {"tscam": score.threshold}


if __name__ == "__main__":
    sys.exit(main())
