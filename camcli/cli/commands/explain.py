"""`camcli explain`: heatmaps, overlays, grids and boxes for images."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from typer import Argument, Context, Option

from camcli.cli import console, options
from camcli.engine import targets
from camcli.io import discovery as sources
from camcli.io import files

ImageFormat = Literal["jpg", "png", "webp"]

# Options that say where results go and how they are had, not what they are.
ELSEWHERE = {
    *("inputs", "output", "overwrite", "resume", "on_error", "format_"),
    *("checkpoint", "labels", "batch_size", "device", "workers", "compile_"),
}


def explain(
    context: Context,
    inputs: Annotated[
        list[str],
        Argument(metavar="INPUT...", help="Files, folders, globs, or - for a list on stdin."),
    ],
    model: options.ModelName = None,
    checkpoint: options.Checkpoint = None,
    labels: options.LabelFile = None,
    method: options.MethodNames = None,
    layers: Annotated[
        str | None,
        Option(metavar="SPEC", help="stage1..5, stage4, last, all, or names; see `camcli layers`."),
    ] = None,
    block: options.Block = None,
    fusion: options.FusionName = None,
    target: Annotated[
        str,
        Option(
            help="predicted, top:5, a class index or name, folder, @targets.csv; CLASS-vs-CLASS, or"
            " finer:N: what tells the predicted class from the N nearest."
        ),
    ] = "predicted",
    head: options.HeadName = None,
    smooth: options.Smooth = "none",
    set_: options.Settings = None,
    seed: options.Seed = 0,
    output: Annotated[Path, Option(metavar="DIR", help="Where files go.")] = Path("camcli-out"),
    overwrite: options.Overwrite = False,
    resume: Annotated[
        bool, Option("--resume", help="Go on with the run in --output, if one is there.")
    ] = False,
    on_error: Annotated[
        Literal["continue", "stop"], Option(help="What a failed image does to the others.")
    ] = "continue",
    save: Annotated[
        str, Option(metavar="LIST", help="Of overlay, heatmap, grid, boxes, array.")
    ] = "overlay,boxes",
    image_format: Annotated[ImageFormat, Option(help="For overlays and grids.")] = "jpg",
    threshold: options.Threshold = None,
    boxes: options.Boxes = "largest",
    colormap: Annotated[str, Option(help="Any matplotlib colormap.")] = "jet",
    alpha: Annotated[float, Option(min=0, max=1, help="Opacity of the heatmap.")] = 0.5,
    fit: options.FitName = "squash",
    size: options.Size = None,
    mean: options.Mean = None,
    std: options.Std = None,
    interpolation: options.Interpolation = None,
    batch_size: options.BatchSize = None,
    device: options.Device = "auto",
    precision: Annotated[
        Literal["fp32", "bf16", "auto"],
        Option(help="Of the network; auto: bf16 where it is faster here, and maps are the same."),
    ] = "fp32",
    compile_: Annotated[
        bool, Option("--compile", help="torch.compile: slow to begin, then faster.")
    ] = False,
    workers: options.Workers = None,
    format_: options.FormatName = "auto",
) -> int:
    """What did the network look at? Writes heatmaps, overlays, grids and boxes."""
    wanted = options.chosen(method) if method else []
    settings = options.settings(set_ or [], wanted, seed)
    smoothing = options.smoothing(smooth, seed, fit)
    normalised = options.transform(mean, std, interpolation)
    kinds, level, input_size = options.saves(save), options.threshold(threshold), options.size(size)
    bind = targets.parse(target)
    options.one_choice_of_layers(layers, block)
    options.must_have_opencv(boxes)
    options.must_exist("--checkpoint", checkpoint)
    options.must_exist("--labels", labels)
    options.one_way_to_go_on(overwrite, resume)
    options.refuse_existing_run(output, overwrite or resume, otherwise="--resume or --overwrite")
    listed = sources.read_list(sys.stdin.read()) if "-" in inputs else []
    found = sources.find(inputs, listed, skip=output)

    from camcli.io.drawing import palette

    palette(colormap)

    from camcli.cli.runners.explain import Run
    from camcli.engine import plan
    from camcli.io import writers as outputs
    from camcli.models import model as models
    from camcli.runs import manifest
    from camcli.runs.config import Job

    name = model if model or checkpoint else plan.default_model(wanted)
    loaded = models.load_model(
        *(name, checkpoint, labels, input_size, device),
        output_activation=head,
        transform_overrides=normalised,
    )
    console.note(loaded.note)
    job = Job(
        loaded,
        plan.plan(loaded, wanted, layers, block, fusion, settings, smoothing),
        bind(loaded.labels),
        fit,
        options.batch_size(batch_size, loaded.device.type, fit),
        workers or options.workers(),
        level,
        boxes,
        smoothing,
        precision,
        compile_,
    )
    style = outputs.Style(loaded.input_size, colormap, alpha, image_format, "boxes" in kinds)
    slugs = files.class_slugs(loaded.labels)
    about = manifest.of_model(loaded, checkpoint or _file(name))
    made_of = _settings(context.params) | {
        "model": loaded.name,
        "method": [request.method.name for request in job.requests],
    }
    return Run(
        job,
        found,
        partial(outputs.save, kinds=kinds, style=style, output=output, slugs=slugs),
        output,
        manifest.begun(job, about, made_of, sys.argv[1:], len(found)),
        format_,
        overwrite,
        resume,
        on_error == "stop",
    ).go()


def _file(name: str | None) -> Path | None:
    """The file of weights that a model is named by, if it is."""
    path = (name or "").removeprefix("program:")
    return Path(path) if os.path.isfile(path) else None


def _settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """The options that results are made of; of a table of targets what it says."""
    from camcli.runs.manifest import digest_of_file

    own = {name: value for name, value in params.items() if name not in ELSEWHERE}
    target = own["target"]
    table = digest_of_file(Path(target[1:])) if target.startswith("@") else None
    return {**own, "target_sha256": table}
