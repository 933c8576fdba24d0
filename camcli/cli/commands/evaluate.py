"""`camcli evaluate localization`: compare maps and boxes with ground truth."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product, starmap
from pathlib import Path
from typing import Annotated

from typer import Context, Typer

from camcli.cli.arguments import InputArguments, MethodArguments, ModelArguments
from camcli.cli.commands.evaluate_faithfulness import faithfulness
from camcli.cli.declarations import (
    BatchSize,
    Boxes,
    Device,
    FormatName,
    LayerSpecs,
    MethodNames,
    ModelList,
    Overwrite,
    Threshold,
    Workers,
)
from camcli.cli.evaluate_declarations import (
    AnnotationPath,
    ChartFormatName,
    ClassList,
    DatasetPath,
    Floors,
    Gallery,
    ImageFolder,
    Limit,
    MapFolders,
    Resamples,
    ResumeEvaluation,
    Split,
    Strict,
)
from camcli.cli.loading import choose_model_name, load_chosen_model
from camcli.cli.option_groups import expand_option_groups
from camcli.cli.options import (
    check_grabcut_available,
    check_map_folders,
    check_no_existing_run,
    check_path_exists,
    check_resume_options,
    choose_batch_size,
    choose_worker_count,
    parse_method_options,
    parse_model_names,
    parse_model_options,
    parse_picture_bands,
)
from camcli.cli.output_folder import (
    choose_output_folder,
    declare_output_folder,
    open_output_folder,
)
from camcli.cli.strict_command import CommandGroup, StrictCommand
from camcli.core.errors import UsageError, format_suggestion, to_one_line
from camcli.core.thresholds import parse_threshold
from camcli.io.file_names import IMAGE_SCORES_FILE
from camcli.io.run_folders import EVALUATE_FOLDER
from camcli.methods.option_parsing import parse_methods
from camcli.methods.registry import Method

# Options that decide the scores, besides those that the rows and the weights tell.
RESULT_OPTIONS = (
    *("block", "fusion", "set_", "smooth", "refine", "fit", "head", "logits", "boxes", "threshold"),
    *("split", "annotations", "maps"),
)

app = Typer(
    cls=CommandGroup, help="Measure maps against ground truth, or against the network itself."
)
app.command("faithfulness", cls=StrictCommand)(expand_option_groups(faithfulness))


@app.callback()
def evaluate() -> None:
    """Measure maps against ground truth, or against the network itself."""


@app.command(cls=StrictCommand)
@expand_option_groups
def localization(
    context: Context,
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
    output: Annotated[
        Path | None, declare_output_folder(EVALUATE_FOLDER, "--resume or --overwrite")
    ] = None,
    overwrite: Overwrite = False,
    resume: ResumeEvaluation = False,
    threshold: Threshold = None,
    boxes: Boxes = "largest",
    resamples: Resamples = 1000,
    gallery: Gallery = "examples",
    chart_format: ChartFormatName = "png",
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
    picture_bands = parse_picture_bands(image.rgb)
    level = parse_threshold(threshold)
    if level == "none":
        raise UsageError("--threshold none leaves no boxes to evaluate; omit it")
    names = [
        choose_model_name(name, model_options, wanted, options.layer_specs)
        for name in parse_model_names(model.model, models, model.checkpoint)
    ]
    model_choices = (model.model, models, model.checkpoint, layers, method_arguments.block)
    _check_map_folders(maps or [], model_choices)
    check_grabcut_available(boxes)
    check_path_exists("--images", images)
    check_path_exists("--annotations", annotations)
    check_resume_options(overwrite, resume)
    continues = overwrite or resume
    folder = choose_output_folder(output, EVALUATE_FOLDER, continues=continues)
    check_no_existing_run(folder, continues, IMAGE_SCORES_FILE)

    floors = _parse_floors(fail_under or [])

    from camcli.evaluation.datasets.reader import DatasetPaths
    from camcli.evaluation.datasets.reader_registry import read_dataset

    paths = DatasetPaths(dataset, images, annotations, split, folder or Path(os.devnull))
    data = read_dataset(paths, allow_missing_images=bool(maps))
    threads = workers or choose_worker_count()

    from camcli.cli.runners.run_evaluate import run_evaluation
    from camcli.engine.plan import plan_layer_specs
    from camcli.evaluation.localization import LocalizationConfig
    from camcli.evaluation.predictions import ANNOTATED_CLASS, ModelMaps
    from camcli.evaluation.stored_maps import FolderMaps
    from camcli.io.labels import create_default_labels, load_labels
    from camcli.runs.run_config import RunConfig

    def open_folder(folder: Path, of_method: Method | None) -> FolderMaps:
        known = load_labels(model.labels, None) if model.labels else create_default_labels(1000)
        return FolderMaps(
            folder=folder,
            labels=known,
            threshold=level if level is not None else of_method.threshold if of_method else 0.2,
            box_selection=boxes,
            workers=threads,
            method=of_method.name if of_method else None,
        )

    def open_model(name: str | None) -> ModelMaps:
        loaded = load_chosen_model(name, model_options)
        if name and os.path.isfile(name):  # tells checkpoints of one architecture apart
            loaded = replace(loaded, name=to_one_line(name))
        plan_options = options.create_plan_options()
        return ModelMaps(
            RunConfig(
                model=loaded,
                requests=plan_layer_specs(loaded, wanted, options.layer_specs, plan_options),
                target=ANNOTATED_CLASS,
                fit=image.fit,
                picture_bands=picture_bands,
                max_pixels=image.max_pixels,
                batch_size=choose_batch_size(batch_size, loaded.device.type, image.fit),
                workers=threads,
                threshold=level,
                box_selection=boxes,
                smoothing=options.smoothing,
            )
        )

    config = LocalizationConfig(
        paths=paths,
        dataset=data,
        class_filter=[part.strip() for part in (classes or "").split(",") if part.strip()],
        limit=limit,
        strict=strict,
        fit=image.fit,
        resamples=resamples,
        seed=method_arguments.seed,
        overwrite=overwrite,
        gallery=gallery,
        chart_format=chart_format,
        resume=resume,
        settings={k: v for k, v in context.params.items() if k in RESULT_OPTIONS},
    )
    # Lazy, so that a model is loaded only after the one before it is evaluated.
    chosen: list[Method | None] = [*wanted] or [None]
    stored = product(dict.fromkeys(maps or []), chosen)
    sources = starmap(open_folder, stored) if maps else map(open_model, names)
    with open_output_folder(folder, EVALUATE_FOLDER) as own_folder:
        return run_evaluation(replace(config, output=own_folder), sources, floors, format_)


def _check_map_folders(maps: Sequence[Path], model_choices: Sequence[object]) -> None:
    if maps and any(choice not in (None, []) for choice in model_choices):
        raise UsageError("--maps cannot be combined with --model or --layers")
    check_map_folders(maps)


def _parse_floors(floor_options: Sequence[str]) -> dict[str, float]:
    """The smallest allowed value of each metric, from `--fail-under METRIC=X`."""
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
