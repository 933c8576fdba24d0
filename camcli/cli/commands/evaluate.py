"""`camcli evaluate localization`: compare maps and boxes with ground truth."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer import Typer

from camcli.cli.arguments import InputArguments, MethodArguments, ModelArguments
from camcli.cli.declarations import (
    BatchSize,
    Boxes,
    Device,
    FormatName,
    LayerSpecs,
    MethodNames,
    ModelList,
    OutputFolder,
    Overwrite,
    Threshold,
    Workers,
)
from camcli.cli.evaluate_declarations import (
    AnnotationPath,
    ClassList,
    DatasetPath,
    Floors,
    ImageFolder,
    Limit,
    MapFolders,
    Resamples,
    Split,
    Strict,
)
from camcli.cli.loading import choose_model_name, load_chosen_model
from camcli.cli.option_groups import expand_option_groups
from camcli.cli.options import (
    check_grabcut_available,
    check_no_existing_run,
    check_path_exists,
    choose_batch_size,
    choose_worker_count,
    parse_method_options,
    parse_methods,
    parse_model_names,
    parse_model_options,
    parse_threshold,
)
from camcli.core.errors import CamcliError, UsageError, format_suggestion, to_one_line
from camcli.io.jsonl import open_log

if TYPE_CHECKING:
    from camcli.cli.runners.evaluate import EvaluateRun

app = Typer(help="Measure how well maps match ground truth.")

IMAGE_SCORES_FILE = "images.jsonl"


@app.callback()
def evaluate() -> None:
    """Measure how well maps match ground truth."""


@app.command()
@expand_option_groups
def localization(
    dataset: DatasetPath,
    *,
    model: ModelArguments,
    models: ModelList = None,
    method: MethodNames = None,
    layers: LayerSpecs = None,
    method_arguments: MethodArguments,
    maps: MapFolders = None,
    images: ImageFolder = None,
    annotations: AnnotationPath = None,
    split: Split = None,
    limit: Limit = None,
    classes: ClassList = None,
    strict: Strict = False,
    image: InputArguments,
    output: OutputFolder = Path("camcli-eval"),
    overwrite: Overwrite = False,
    threshold: Threshold = None,
    boxes: Boxes = "largest",
    resamples: Resamples = 1000,
    fail_under: Floors = None,
    format_: FormatName = "auto",
    batch_size: BatchSize = None,
    device: Device = "auto",
    workers: Workers = None,
) -> int:
    """Compare maps with ground-truth boxes or masks.

    camcli computes GT-known, Loc@1/5, MaxBoxAcc, PxAP and the pointing game, for the method and for
    two baselines that do not see the image.
    """
    wanted = parse_methods(method) if method else []
    options = parse_method_options(wanted, method_arguments, layers, image.fit)
    model_options = parse_model_options(model, image, device)
    level = parse_threshold(threshold)
    names = parse_model_names(model.model, models, model.checkpoint)
    model_choices = (model.model, models, model.checkpoint, method, layers, options.block)
    _check_map_folders(maps or [], model_choices)
    check_grabcut_available(boxes)
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
    from camcli.engine.plan import plan_layer_specs
    from camcli.engine.targets import parse_target
    from camcli.evaluation.localization import Scoreboard
    from camcli.evaluation.predictions import (
        EvaluationRow,
        create_evaluation_rows,
        iter_folder_predictions,
        iter_model_predictions,
    )
    from camcli.io.labels import create_default_labels, load_labels
    from camcli.runs.config import RunConfig

    def score_folder(run: EvaluateRun, folder: Path) -> None:
        row = EvaluationRow(to_one_line(folder), "maps", (), 0.2 if level is None else level)
        known = load_labels(model.labels, None) if model.labels else create_default_labels(1000)
        produce = partial(iter_folder_predictions, folder, boxes, threads)
        run.score_images(produce, known, (row,), unknown_class=-1)

    def score_model(run: EvaluateRun, name: str | None) -> None:
        chosen = choose_model_name(name, model_options, wanted)
        loaded = load_chosen_model(chosen, model_options)
        if name and os.path.isfile(name):  # checkpoints of one architecture are told apart
            loaded = replace(loaded, name=to_one_line(name))
        job = RunConfig(
            model=loaded,
            requests=plan_layer_specs(
                loaded,
                wanted,
                layers or [None],
                options.block,
                options.fusion,
                options.settings,
                options.smoothing,
            ),
            target=parse_target("predicted")(loaded.labels),  # each annotation's class replaces it
            fit=image.fit,
            batch_size=choose_batch_size(batch_size, loaded.device.type, image.fit),
            workers=threads,
            threshold=level,
            box_selection=boxes,
            smoothing=options.smoothing,
        )
        run.score_images(
            partial(iter_model_predictions, job),
            loaded.labels,
            create_evaluation_rows(job),
        )

    about = {
        "dataset": str(dataset),
        "kind": data.kind,
        "split": split,
        "limit": limit,
        "fit": image.fit,
    }
    with ExitStack() as stack:
        start = partial(open_log, output, overwrite, IMAGE_SCORES_FILE)
        board = Scoreboard(resamples, method_arguments.seed)
        run = EvaluateRun(
            dataset=data,
            class_filter=asked,
            limit=limit,
            strict=strict,
            scoreboard=board,
            output=output,
            open_score_log=lambda: stack.enter_context(start()),
            format=format_,
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


def _check_map_folders(maps: Sequence[Path], model_choices: Sequence[object]) -> None:
    if maps and any(choice not in (None, []) for choice in model_choices):
        raise UsageError("--maps cannot be combined with --model, --method or --layers")
    for folder in maps:
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
