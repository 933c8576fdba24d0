"""`camcli explain`: heatmaps, overlays, grids and boxes for images."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer import Context

from camcli.cli.arguments import (
    ExplainOutputArguments,
    ExplainSpeedArguments,
    InputArguments,
    MethodArguments,
    ModelArguments,
)
from camcli.cli.declarations import Inputs, LayerSpec, MethodNames, TargetSpecs
from camcli.cli.loading import (
    choose_model_name,
    limit_batch_size,
    load_chosen_model,
    print_many_classes_notice,
)
from camcli.cli.options import (
    MethodOptions,
    check_grabcut_available,
    check_no_existing_run,
    check_resume_options,
    choose_batch_size,
    choose_worker_count,
    parse_method_options,
    parse_model_options,
    parse_output_kinds,
)
from camcli.core.thresholds import parse_threshold
from camcli.engine.targets import DEFAULT_TARGET, list_references, parse_target
from camcli.io.discovery import find_image_sources, parse_path_list
from camcli.io.files import create_class_slugs
from camcli.io.writers import SHEET, DrawingStyle, write_result
from camcli.methods.option_parsing import parse_methods

if TYPE_CHECKING:
    from camcli.core.types import Result
    from camcli.engine.request import Request
    from camcli.models.model import Model
    from camcli.runs.run_config import RunConfig

# Options that change where and how fast results are written, but not the results.
NON_RESULT_OPTIONS = {
    "inputs",
    "output",
    "overwrite",
    "resume",
    "on_error",
    "format_",
    "checkpoint",
    "labels",
    "batch_size",
    "device",
    "workers",
    "compile_",
}


def explain(
    context: Context,
    inputs: Inputs,
    *,
    model: ModelArguments,
    method: MethodNames = None,
    layers: LayerSpec = None,
    target: TargetSpecs = None,
    method_arguments: MethodArguments,
    image: InputArguments,
    output: ExplainOutputArguments,
    speed: ExplainSpeedArguments,
) -> int:
    """Draw heatmaps and boxes that show what the network looked at."""
    methods = parse_methods(method) if method else []
    options = parse_method_options(methods, method_arguments, layers, image.fit)
    targets = target or [DEFAULT_TARGET]
    parse_target(targets)  # a wrong one is told before the network is loaded
    model_options = parse_model_options(model, image, speed.device)
    kinds = parse_output_kinds(output.save)
    threshold = parse_threshold(output.threshold)
    check_grabcut_available(output.boxes)
    check_resume_options(output.overwrite, output.resume)
    listed = parse_path_list(sys.stdin.read()) if "-" in inputs else []
    sources = find_image_sources(inputs, listed, skip_folder=output.output)
    check_no_existing_run(
        output.output, output.overwrite or output.resume, remedy="--resume or --overwrite"
    )

    from camcli.io.drawing import find_palette

    find_palette(output.colormap)

    from camcli.cli.runners.run_explain import run_explain
    from camcli.runs.explain_run import ExplainTask
    from camcli.runs.run_config import RunConfig
    from camcli.runs.similarity import bind_target

    name = choose_model_name(model.model, model_options, methods)
    network, bound = bind_target(load_chosen_model(name, model_options), targets, image.fit)
    print_many_classes_notice(bound, len(kinds))
    config = RunConfig(
        model=network,
        requests=_plan_requests(network, options, layers),
        target=bound,
        fit=image.fit,
        batch_size=choose_batch_size(
            speed.batch_size or limit_batch_size(bound), network.device.type, image.fit
        ),
        workers=speed.workers or choose_worker_count(),
        threshold=threshold,
        box_selection=output.boxes,
        smoothing=options.smoothing,
        precision=speed.precision,
        is_compiled=speed.compile_,
    )
    style = DrawingStyle(
        network.input_size,
        colormap=output.colormap,
        alpha=output.alpha,
        image_format=output.image_format,
        with_boxes="boxes" in kinds,
    )
    weights_file = model.checkpoint or _find_model_file(name)
    task = ExplainTask(
        config=config,
        sources=sources,
        write_files=_create_writer(network, kinds, output, style),
        output=output.output,
        manifest=_create_document(config, context.params, weights_file, len(sources)),
        overwrite=output.overwrite,
        resume=output.resume,
        stop_on_error=output.on_error == "stop",
    )
    return run_explain(task, output.format_, style if SHEET in kinds else None)


def _plan_requests(
    network: Model, options: MethodOptions, layers: str | None
) -> tuple[Request, ...]:
    from camcli.engine.plan import plan_requests

    return plan_requests(
        network,
        options.methods,
        layer_spec=layers,
        block=options.block,
        fusion=options.fusion,
        options=options.settings,
        smoothing=options.smoothing,
    )


def _create_writer(
    network: Model, kinds: Sequence[str], output: ExplainOutputArguments, style: DrawingStyle
) -> Callable[[Result], Result]:
    """Create the function that writes the files of one result."""
    slugs = create_class_slugs(network.labels)
    return partial(write_result, kinds=kinds, style=style, output=output.output, slugs=slugs)


def _create_document(
    config: RunConfig, params: Mapping[str, Any], weights_file: Path | None, image_count: int
) -> dict[str, Any]:
    """The start of run.json: the network, and the options that decide the results."""
    from camcli.runs.manifest import create_manifest, create_model_entry

    settings = _create_result_settings(params) | {
        "model": config.model.name,
        "method": [request.method.name for request in config.requests],
    }
    entry = create_model_entry(config.model, weights_file)
    return create_manifest(config, entry, settings, sys.argv[1:], image_count)


def _find_model_file(name: str | None) -> Path | None:
    """The weights file, if `--model` names one."""
    path = (name or "").removeprefix("program:")
    return Path(path) if os.path.isfile(path) else None


def _create_result_settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide the results, and digests of the files that targets name."""
    from camcli.runs.manifest import compute_file_digest

    own = {name: value for name, value in params.items() if name not in NON_RESULT_OPTIONS}
    targets = own["target"] or [DEFAULT_TARGET]
    tables = [Path(spec[1:]) for spec in targets if spec.startswith("@")]
    files = [file for path in (*tables, *list_references(targets)) for file in _list_files(path)]
    digests = [compute_file_digest(file) for file in files]
    return {
        **own,
        # A run of one target compares equal to one of an older version, which had a text here.
        "target": targets[0] if len(targets) == 1 else targets,
        "target_sha256": digests[0] if len(digests) == 1 else digests or None,
    }


def _list_files(path: Path) -> list[Path]:
    """The file itself, or the files in a folder."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
