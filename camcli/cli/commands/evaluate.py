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

from camcli.cli import console, options
from camcli.core.errors import CamcliError, UsageError, hint, one_line
from camcli.io import jsonl

if TYPE_CHECKING:
    from camcli.cli.runners.evaluate import Run

app = Typer(help="How good are the maps? Measured against what people have marked.")

IMAGES = "images.jsonl"


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
    model: options.ModelName = None,
    models: Annotated[
        str | None, Option(metavar="LIST", help="Several models, parted by commas.")
    ] = None,
    checkpoint: options.Checkpoint = None,
    labels: options.LabelFile = None,
    method: options.MethodNames = None,
    layers: Annotated[
        list[str] | None,
        Option(metavar="SPEC", help="As for explain; each --layers is a row of its own."),
    ] = None,
    block: options.Block = None,
    fusion: options.FusionName = None,
    set_: options.Settings = None,
    head: options.HeadName = None,
    smooth: options.Smooth = "none",
    threshold: options.Threshold = None,
    boxes: options.Boxes = "largest",
    fit: options.FitName = "squash",
    size: options.Size = None,
    mean: options.Mean = None,
    std: options.Std = None,
    interpolation: options.Interpolation = None,
    batch_size: options.BatchSize = None,
    device: options.Device = "auto",
    workers: options.Workers = None,
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
    overwrite: options.Overwrite = False,
    format_: options.FormatName = "auto",
) -> int:
    """Do the boxes fit? GT-known, Loc@1/5, MaxBoxAcc, PxAP, pointing game, with baselines."""
    wanted = options.chosen(method) if method else []
    settings = options.settings(set_ or [], wanted, seed)
    smoothing = options.smoothing(smooth, seed, fit)
    normalised = options.transform(mean, std, interpolation)
    level, input_size = options.threshold(threshold), options.size(size)
    names = options.models(model, models, checkpoint)
    _refuse_contradictions(layers, block, maps, (model, models, checkpoint, method, layers, block))
    options.must_have_opencv(boxes)
    options.must_exist("--checkpoint", checkpoint)
    options.must_exist("--labels", labels)
    options.must_be_there("--images", images)
    options.must_be_there("--annotations", annotations)
    options.refuse_existing_run(output, overwrite, IMAGES)

    below = _floors(fail_under or [])

    from camcli.evaluation.datasets import registry as datasets

    place = datasets.DatasetPaths(
        dataset, images, annotations, split, output, allow_missing_images=bool(maps)
    )
    data = datasets.read_dataset(place)
    asked = [part.strip() for part in (classes or "").split(",") if part.strip()]
    threads = workers or options.workers()

    from camcli.cli.runners.evaluate import Run
    from camcli.engine import plan, targets
    from camcli.evaluation import predictions as given
    from camcli.evaluation.localization import Scoreboard
    from camcli.io import labels as naming
    from camcli.models import model as loading
    from camcli.runs.config import Job

    def of_folder(run: Run, folder: Path) -> None:
        row = given.EvaluationRow(one_line(folder), "maps", (), 0.2 if level is None else level)
        known = naming.load_labels(labels, None) if labels else naming.create_default_labels(1000)
        produce = partial(given.iter_folder_predictions, folder, boxes, threads)
        run.score(produce, known, (row,), unknown=-1)

    def of_model(run: Run, name: str | None) -> None:
        known = name if name or checkpoint else plan.default_model(wanted)
        loaded = loading.load_model(
            *(known, checkpoint, labels, input_size, device),
            output_activation=head,
            transform_overrides=normalised,
        )
        console.note(loaded.note)
        if name and os.path.isfile(name):  # checkpoints of one architecture are told apart
            loaded = replace(loaded, name=one_line(name))
        job = Job(
            loaded,
            plan.several(loaded, wanted, layers or [None], block, fusion, settings, smoothing),
            targets.parse("predicted")(loaded.labels),  # each truth's class takes its place
            fit,
            options.batch_size(batch_size, loaded.device.type, fit),
            threads,
            level,
            boxes,
            smoothing,
        )
        run.score(
            partial(given.iter_model_predictions, job),
            loaded.labels,
            given.create_evaluation_rows(job),
        )

    about = {"dataset": str(dataset), "kind": data.kind, "split": split, "limit": limit, "fit": fit}
    with ExitStack() as stack:
        start = partial(jsonl.opened, output, overwrite, IMAGES)
        board = Scoreboard(resamples, seed)
        run = Run(
            *(data, asked, limit, strict, board, output),
            lambda: stack.enter_context(start()),
            format_,
        )
        steps = [partial(of_folder, run, folder) for folder in dict.fromkeys(maps or [])]
        _do(steps or [partial(of_model, run, name) for name in names], run, about)
        return run.report({**about, "complete": True}, below)


def _do(steps: Sequence[Callable[[], None]], run: Run, about: Mapping[str, Any]) -> None:
    """Each step; where one fails, what is done is told before what went wrong."""
    try:
        for step in steps:
            step()
    except (CamcliError, KeyboardInterrupt):
        if run.board.metric_sums:
            run.report({**about, "complete": False}, {})
        raise


def _refuse_contradictions(
    layers: Sequence[str] | None,
    block: int | None,
    maps: Sequence[Path] | None,
    of_models: Sequence[object],
) -> None:
    options.one_choice_of_layers(layers, block)
    if maps and any(option not in (None, []) for option in of_models):
        raise UsageError("--maps brings maps of its own; leave --model, --method and --layers out")
    for folder in maps or []:
        if not os.path.isdir(folder):
            raise UsageError(f"--maps {folder}: no such folder")


def _floors(given: Sequence[str]) -> dict[str, float]:
    """`--fail-under METRIC=X` as the least value of each metric."""
    from camcli.evaluation.metrics.aggregation import METRICS

    names = [metric.name for metric in METRICS]
    floors = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in names:
            near = hint(name, names)
            raise UsageError(f"--fail-under {text}: no such metric{near} ({', '.join(names)})")
        if not re.fullmatch(r"\d*\.?\d+", value):
            raise UsageError(f"--fail-under {text}: write METRIC=X, such as gt_known=0.6")
        floors[name] = float(value)
    return floors
