"""`camcli evaluate localization`: how well do maps and boxes fit what people have marked?"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from typer import Argument, Option, Typer

from camcli.cli.console import print_notice
from camcli.cli.declarations import (
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
)
from camcli.cli.options import (
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
from camcli.core.errors import UsageError, format_suggestion, to_one_line

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

    floors = _parse_floors(fail_under or [])

    from camcli.evaluation.datasets.reader import DatasetPaths
    from camcli.evaluation.datasets.registry import read_dataset

    paths = DatasetPaths(dataset, images, annotations, split, output)
    data = read_dataset(paths, allow_missing_images=bool(maps))
    threads = workers or choose_worker_count()

    from camcli.cli.runners.evaluate import run_evaluation
    from camcli.engine.plan import choose_default_model, plan_layer_specs
    from camcli.evaluation.localization import LocalizationConfig
    from camcli.evaluation.predictions import ANNOTATED_CLASS, ModelMaps
    from camcli.evaluation.stored_maps import FolderMaps
    from camcli.io.labels import create_default_labels, load_labels
    from camcli.models.model import load_model
    from camcli.runs.config import RunConfig

    def open_folder(folder: Path) -> FolderMaps:
        return FolderMaps(
            folder=folder,
            labels=load_labels(labels, None) if labels else create_default_labels(1000),
            threshold=0.2 if level is None else level,
            box_selection=boxes,
            workers=threads,
        )

    def open_model(name: str | None) -> ModelMaps:
        loaded = load_model(
            name if name or checkpoint else choose_default_model(wanted),
            checkpoint=checkpoint,
            label_file=labels,
            size=input_size,
            device=device,
            output_activation=head,
            transform_overrides=normalised,
        )
        print_notice(loaded.note)
        if name and os.path.isfile(name):  # tells checkpoints of one architecture apart
            loaded = replace(loaded, name=to_one_line(name))
        return ModelMaps(
            RunConfig(
                model=loaded,
                requests=plan_layer_specs(
                    loaded, wanted, layers or [None], block, fusion, settings, smoothing
                ),
                target=ANNOTATED_CLASS,
                fit=fit,
                batch_size=choose_batch_size(batch_size, loaded.device.type, fit),
                workers=threads,
                threshold=level,
                box_selection=boxes,
                smoothing=smoothing,
            )
        )

    config = LocalizationConfig(
        paths=paths,
        dataset=data,
        class_filter=[part.strip() for part in (classes or "").split(",") if part.strip()],
        limit=limit,
        strict=strict,
        fit=fit,
        resamples=resamples,
        seed=seed,
        output=output,
        overwrite=overwrite,
    )
    # Lazy, so that a model is loaded only after the one before it is evaluated.
    sources = map(open_folder, dict.fromkeys(maps)) if maps else map(open_model, names)
    return run_evaluation(config, sources, floors, format_)


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
