"""`camcli evaluate localization`: how well do maps and boxes fit what people have marked?"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option, Typer

from camcli.cli.console import print_notice
from camcli.cli.options import (
    BatchSize,
    Block,
    Boxes,
    Checkpoint,
    Device,
    FitName,
    FormatName,
    FusionName,
    HeadName,
    Interpolation,
    LabelFile,
    Mean,
    MethodNames,
    ModelName,
    Overwrite,
    Settings,
    Size,
    Smooth,
    Std,
    Threshold,
    Workers,
    check_file_exists,
    check_grabcut_available,
    check_layer_options,
    check_no_existing_run,
    check_path_exists,
    choose_batch_size,
    choose_worker_count,
    parse_input_size,
    parse_method_settings,
    parse_methods,
    parse_model_names,
    parse_smoothing_options,
    parse_threshold,
    parse_transform_options,
)
from camcli.core.errors import CamcliError, UsageError, format_suggestion, to_one_line
from camcli.io.jsonl import open_log

if TYPE_CHECKING:
    from camcli.cli.runners.evaluate import EvaluateRun

app = Typer(help="How good are the maps? Measured against what people have marked.")

IMAGE_SCORES_FILE = "images.jsonl"


@app.callback()
def evaluate() -> None:
    """How good are the maps? Measured against what people have marked."""


@app.command()
def localization(
    dataset: Annotated[
        Path, Argument(metavar="DATASET", help="CUB, wsolevaluation, VOC, COCO, boxes.csv, a list.")
    ],
    images: Annotated[
        Path | None, Option(metavar="DIR", help="Where the images are, if not in DATASET.")
    ] = None,
    annotations: Annotated[
        Path | None, Option(metavar="PATH", help="Where boxes or masks are, if not in DATASET.")
    ] = None,
    split: Annotated[str | None, Option(help="As the data set names it: test, train, val.")] = None,
    limit: Annotated[
        int | None, Option(min=1, help="N images, the first of a fixed shuffle.")
    ] = None,
    classes: Annotated[
        str | None, Option(metavar="LIST", help="Only classes of these names or indices.")
    ] = None,
    strict: Annotated[
        bool, Option("--strict", help="Stop at the first thing wrong with the data.")
    ] = False,
    maps: Annotated[
        list[Path] | None,
        Option(metavar="DIR", help="Maps on disk instead of a model: .npy, or --save array."),
    ] = None,
    model: ModelName = None,
    models: Annotated[
        str | None, Option(metavar="LIST", help="Several models, parted by commas.")
    ] = None,
    checkpoint: Checkpoint = None,
    labels: LabelFile = None,
    method: MethodNames = None,
    layers: Annotated[
        list[str] | None,
        Option(metavar="SPEC", help="As for explain; each --layers is a row of its own."),
    ] = None,
    block: Block = None,
    fusion: FusionName = None,
    set_: Settings = None,
    head: HeadName = None,
    smooth: Smooth = "none",
    threshold: Threshold = None,
    boxes: Boxes = "largest",
    fit: FitName = "squash",
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    interpolation: Interpolation = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
    workers: Workers = None,
    seed: Annotated[
        int,
        Option(min=0, max=2**31, help="For the random map, the bootstrap, and methods that draw."),
    ] = 0,
    resamples: Annotated[
        int, Option(min=0, max=10000, help="Bootstrap resamples; 0 for no intervals.")
    ] = 1000,
    fail_under: Annotated[
        list[str] | None,
        Option(metavar="METRIC=X", help="Exit with 1 if a row is below: gt_known=0.6."),
    ] = None,
    output: Annotated[Path, Option(metavar="DIR", help="Where files go.")] = Path("camcli-eval"),
    overwrite: Overwrite = False,
    format_: FormatName = "auto",
) -> int:
    """Do the boxes fit? GT-known, Loc@1/5, MaxBoxAcc, PxAP, pointing game, with baselines."""
    wanted = parse_methods(method) if method else []
    settings = parse_method_settings(set_ or [], wanted, seed)
    smoothing = parse_smoothing_options(smooth, seed, fit)
    normalised = parse_transform_options(mean, std, interpolation)
    level, input_size = parse_threshold(threshold), parse_input_size(size)
    names = parse_model_names(model, models, checkpoint)
    _check_contradictions(layers, block, maps, (model, models, checkpoint, method, layers, block))
    check_grabcut_available(boxes)
    check_file_exists("--checkpoint", checkpoint)
    check_file_exists("--labels", labels)
    check_path_exists("--images", images)
    check_path_exists("--annotations", annotations)
    check_no_existing_run(output, overwrite, IMAGE_SCORES_FILE)

    below = _parse_floors(fail_under or [])

    from camcli.evaluation.datasets.registry import DatasetPaths, read_dataset

    place = DatasetPaths(
        dataset, images, annotations, split, output, allow_missing_images=bool(maps)
    )
    data = read_dataset(place)
    asked = [part.strip() for part in (classes or "").split(",") if part.strip()]
    threads = workers or choose_worker_count()

    from camcli.cli.runners.evaluate import EvaluateRun
    from camcli.engine.plan import PlanOptions, choose_default_model, plan_layer_specs
    from camcli.engine.targets import parse_target
    from camcli.evaluation.localization import Scoreboard
    from camcli.evaluation.predictions import (
        EvaluationRow,
        create_evaluation_rows,
        iter_folder_predictions,
        iter_model_predictions,
    )
    from camcli.io.labels import create_default_labels, load_labels
    from camcli.models.model import load_model
    from camcli.runs.config import RunConfig

    def score_folder(run: EvaluateRun, folder: Path) -> None:
        row = EvaluationRow(to_one_line(folder), "maps", (), 0.2 if level is None else level)
        known = load_labels(labels, None) if labels else create_default_labels(1000)
        produce = partial(iter_folder_predictions, folder, boxes, threads)
        run.score_images(produce, known, (row,), unknown_class=-1)

    def score_model(run: EvaluateRun, name: str | None) -> None:
        known = name if name or checkpoint else choose_default_model(wanted)
        loaded = load_model(
            *(known, checkpoint, labels, input_size, device),
            output_activation=head,
            transform_overrides=normalised,
        )
        print_notice(loaded.note)
        if name and os.path.isfile(name):  # checkpoints of one architecture are told apart
            loaded = replace(loaded, name=to_one_line(name))
        job = RunConfig(
            loaded,
            plan_layer_specs(
                loaded,
                wanted,
                layers or [None],
                PlanOptions(block=block, fusion=fusion, options=settings, smoothing=smoothing),
            ),
            parse_target("predicted")(loaded.labels),  # each truth's class takes its place
            fit,
            choose_batch_size(batch_size, loaded.device.type, fit),
            threads,
            level,
            boxes,
            smoothing,
        )
        run.score_images(
            partial(iter_model_predictions, job),
            loaded.labels,
            create_evaluation_rows(job),
        )

    about = {"dataset": str(dataset), "kind": data.kind, "split": split, "limit": limit, "fit": fit}
    with ExitStack() as stack:
        start = partial(open_log, output, overwrite, IMAGE_SCORES_FILE)
        board = Scoreboard(resamples, seed)
        run = EvaluateRun(
            *(data, asked, limit, strict, board, output),
            lambda: stack.enter_context(start()),
            format_,
        )
        steps = [partial(score_folder, run, folder) for folder in dict.fromkeys(maps or [])]
        _run_steps(steps or [partial(score_model, run, name) for name in names], run, about)
        return run.write_report({**about, "complete": True}, below)


def _run_steps(
    steps: Sequence[Callable[[], None]], run: EvaluateRun, header: Mapping[str, Any]
) -> None:
    """Each step; where one fails, what is done is told before what went wrong."""
    try:
        for step in steps:
            step()
    except (CamcliError, KeyboardInterrupt):
        if run.scoreboard.metric_sums:
            run.write_report({**header, "complete": False}, {})
        raise


def _check_contradictions(
    layers: Sequence[str] | None,
    block: int | None,
    maps: Sequence[Path] | None,
    model_options: Sequence[object],
) -> None:
    check_layer_options(layers, block)
    if maps and any(option not in (None, []) for option in model_options):
        raise UsageError("--maps brings maps of its own; leave --model, --method and --layers out")
    for folder in maps or []:
        if not os.path.isdir(folder):
            raise UsageError(f"--maps {folder}: no such folder")


def _parse_floors(floor_options: Sequence[str]) -> dict[str, float]:
    """`--fail-under METRIC=X` as the least value of each metric."""
    from camcli.evaluation.metrics.aggregation import METRICS

    names = [metric.name for metric in METRICS]
    floors = {}
    for text in floor_options:
        name, _, value = text.partition("=")
        if name not in names:
            near = format_suggestion(name, names)
            raise UsageError(f"--fail-under {text}: no such metric{near} ({', '.join(names)})")
        if not re.fullmatch(r"\d*\.?\d+", value):
            raise UsageError(f"--fail-under {text}: write METRIC=X, such as gt_known=0.6")
        floors[name] = float(value)
    return floors
