"""`camcli explain`: heatmaps, overlays, grids and boxes for images."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Context, Option

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
    Seed,
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
    check_resume_options,
    choose_batch_size,
    choose_worker_count,
    parse_input_size,
    parse_method_settings,
    parse_methods,
    parse_output_kinds,
    parse_smoothing_options,
    parse_threshold,
    parse_transform_options,
)
from camcli.engine.targets import parse_target
from camcli.io.discovery import find_image_sources, parse_path_list
from camcli.io.files import create_class_slugs
from camcli.io.writers import describe_writers

ImageFormat = Literal["jpg", "png", "webp"]

# Options that say where results go and how they are had, not what they are.
NON_RESULT_OPTIONS = {
    *("inputs", "output", "overwrite", "resume", "on_error", "format_"),
    *("checkpoint", "labels", "batch_size", "device", "workers", "compile_"),
}


def explain(
    context: Context,
    inputs: Annotated[
        list[str],
        Argument(metavar="INPUT...", help="Files, folders, globs, or - for a list on stdin."),
    ],
    model: ModelName = None,
    checkpoint: Checkpoint = None,
    labels: LabelFile = None,
    method: MethodNames = None,
    layers: Annotated[
        str | None,
        Option(metavar="SPEC", help="stage1..5, stage4, last, all, or names; see `camcli layers`."),
    ] = None,
    block: Block = None,
    fusion: FusionName = None,
    target: Annotated[
        str,
        Option(
            help="predicted, top:5, a class index or name, folder, @targets.csv; CLASS-vs-CLASS, or"
            " finer:N: what tells the predicted class from the N nearest."
        ),
    ] = "predicted",
    head: HeadName = None,
    smooth: Smooth = "none",
    set_: Settings = None,
    seed: Seed = 0,
    output: Annotated[Path, Option(metavar="DIR", help="Where files go.")] = Path("camcli-out"),
    overwrite: Overwrite = False,
    resume: Annotated[
        bool, Option("--resume", help="Go on with the run in --output, if one is there.")
    ] = False,
    on_error: Annotated[
        Literal["continue", "stop"], Option(help="What a failed image does to the others.")
    ] = "continue",
    save: Annotated[
        str, Option(metavar="LIST", help=f"Kinds of file. {describe_writers()}.")
    ] = "overlay,boxes",
    image_format: Annotated[ImageFormat, Option(help="For overlays and grids.")] = "jpg",
    threshold: Threshold = None,
    boxes: Boxes = "largest",
    colormap: Annotated[str, Option(help="Any matplotlib colormap.")] = "jet",
    alpha: Annotated[float, Option(min=0, max=1, help="Opacity of the heatmap.")] = 0.5,
    fit: FitName = "squash",
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    interpolation: Interpolation = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
    precision: Annotated[
        Literal["fp32", "bf16", "auto"],
        Option(help="Of the network; auto: bf16 where it is faster here, and maps are the same."),
    ] = "fp32",
    compile_: Annotated[
        bool, Option("--compile", help="torch.compile: slow to begin, then faster.")
    ] = False,
    workers: Workers = None,
    format_: FormatName = "auto",
) -> int:
    """What did the network look at? Writes heatmaps, overlays, grids and boxes."""
    wanted = parse_methods(method) if method else []
    settings = parse_method_settings(set_ or [], wanted, seed)
    smoothing = parse_smoothing_options(smooth, seed, fit)
    normalised = parse_transform_options(mean, std, interpolation)
    kinds, level, input_size = (
        parse_output_kinds(save),
        parse_threshold(threshold),
        parse_input_size(size),
    )
    bind = parse_target(target)
    check_layer_options(layers, block)
    check_grabcut_available(boxes)
    check_file_exists("--checkpoint", checkpoint)
    check_file_exists("--labels", labels)
    check_resume_options(overwrite, resume)
    check_no_existing_run(output, overwrite or resume, remedy="--resume or --overwrite")
    listed = parse_path_list(sys.stdin.read()) if "-" in inputs else []
    found = find_image_sources(inputs, listed, skip_folder=output)

    from camcli.io.drawing import find_palette

    find_palette(colormap)

    from camcli.cli.runners.explain import ExplainRun
    from camcli.engine.plan import choose_default_model, plan_requests
    from camcli.io.writers import DrawingStyle, write_result
    from camcli.models.model import load_model
    from camcli.runs.config import RunConfig
    from camcli.runs.manifest import create_manifest, create_model_entry

    name = model if model or checkpoint else choose_default_model(wanted)
    loaded = load_model(
        *(name, checkpoint, labels, input_size, device),
        output_activation=head,
        transform_overrides=normalised,
    )
    print_notice(loaded.note)
    job = RunConfig(
        loaded,
        plan_requests(loaded, wanted, layers, block, fusion, settings, smoothing),
        bind(loaded.labels),
        fit,
        choose_batch_size(batch_size, loaded.device.type, fit),
        workers or choose_worker_count(),
        level,
        boxes,
        smoothing,
        precision,
        compile_,
    )
    style = DrawingStyle(loaded.input_size, colormap, alpha, image_format, "boxes" in kinds)
    slugs = create_class_slugs(loaded.labels)
    about = create_model_entry(loaded, checkpoint or _find_model_file(name))
    made_of = _create_result_settings(context.params) | {
        "model": loaded.name,
        "method": [request.method.name for request in job.requests],
    }
    return ExplainRun(
        job,
        found,
        partial(write_result, kinds=kinds, style=style, output=output, slugs=slugs),
        output,
        create_manifest(job, about, made_of, sys.argv[1:], len(found)),
        format_,
        overwrite,
        resume,
        on_error == "stop",
    ).run()


def _find_model_file(name: str | None) -> Path | None:
    """The file of weights that a model is named by, if it is."""
    path = (name or "").removeprefix("program:")
    return Path(path) if os.path.isfile(path) else None


def _create_result_settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """The options that results are made of; of a table of targets what it says."""
    from camcli.runs.manifest import compute_file_digest

    own = {name: value for name, value in params.items() if name not in NON_RESULT_OPTIONS}
    target = own["target"]
    table = compute_file_digest(Path(target[1:])) if target.startswith("@") else None
    return {**own, "target_sha256": table}
