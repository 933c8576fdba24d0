"""`camcli explain`: heatmaps, overlays, grids and boxes for images."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
from camcli.cli.declarations import Inputs, LayerSpecs, MethodNames, TargetSpecs
from camcli.cli.export_lines import check_box_format
from camcli.cli.input_sources import find_input_sources, read_listed_paths
from camcli.cli.loading import (
    choose_model_name,
    limit_batch_size,
    load_chosen_model,
    print_left_out,
    print_many_classes_notice,
)
from camcli.cli.options import (
    check_grabcut_available,
    check_resume_options,
    choose_batch_size,
    choose_worker_count,
    parse_method_options,
    parse_model_options,
    parse_output_kinds,
    parse_picture_bands,
)
from camcli.cli.output_folder import choose_output_folder, open_output_folder
from camcli.cli.page_output import print_report
from camcli.cli.picture_arguments import (
    PictureArguments,
    check_colors,
    create_drawing_style,
    warn_of_undrawable_names,
)
from camcli.cli.result_settings import create_result_settings
from camcli.cli.shard_arguments import (
    ShardArguments,
    choose_local_device,
    choose_run_folder,
    parse_sharing,
)
from camcli.core.errors import UsageError
from camcli.core.thresholds import parse_threshold
from camcli.engine.targets import DEFAULT_TARGET, parse_target
from camcli.io.files import create_class_slugs
from camcli.io.run_folders import EXPLAIN_FOLDER
from camcli.io.value_ranges import parse_scale
from camcli.io.writers import SHEET
from camcli.methods.option_parsing import parse_methods

if TYPE_CHECKING:
    from camcli.cli.runners.show_overlays import OverlayShow
    from camcli.core.types import Result
    from camcli.engine.plan import SuitablePlan
    from camcli.io.writers import DrawingStyle
    from camcli.models.model import Model
    from camcli.runs.run_config import RunConfig

# Options that change where and how fast results are written, but not the results.
NON_RESULT_OPTIONS = {
    "inputs",
    "output",
    "overwrite",
    "resume",
    "show",
    "on_error",
    "format_",
    "box_format",
    "checkpoint",
    "labels",
    "batch_size",
    "max_pixels",
    "device",
    "workers",
    "compile_",
    "report",
    "shard",
    "devices",
    "max_failures",
}


def explain(
    context: Context,
    inputs: Inputs,
    *,
    model: ModelArguments,
    method: MethodNames = None,
    layers: LayerSpecs = None,
    target: TargetSpecs = None,
    method_arguments: MethodArguments,
    image: InputArguments,
    output: ExplainOutputArguments,
    pictures: PictureArguments,
    speed: ExplainSpeedArguments,
    sharing: ShardArguments,
) -> int:
    """Draw heatmaps and boxes that show what the network looked at.

    For example: camcli explain photo.jpg --method layercam --layers stage1..5 --save grid
    """
    methods = parse_methods(method) if method else []
    options = parse_method_options(methods, method_arguments, layers, image.fit)
    targets = target or [DEFAULT_TARGET]
    parse_target(targets)  # a wrong one is told before the network is loaded
    picture_bands = parse_picture_bands(image.rgb)
    model_options = parse_model_options(model, image, speed.device)
    name = choose_model_name(model.model, model_options, methods, options.layer_specs)
    save = f"{output.save},map" if output.report else output.save
    kinds = parse_output_kinds(save)
    threshold = parse_threshold(output.threshold)
    if threshold == "none" and {"mask", "cutout"} & {*kinds}:
        raise UsageError("--threshold none leaves no region for --save mask and cutout; omit it")
    check_box_format(output.box_format, threshold)
    scale = parse_scale(output.scale)
    check_grabcut_available(output.boxes)
    check_resume_options(output.overwrite, output.resume)
    share = parse_sharing(sharing, output, speed, kinds)
    continues = {"overwrite": output.overwrite, "resume": output.resume}
    folder = choose_output_folder(output.output, EXPLAIN_FOLDER, continues=any(continues.values()))
    listed = read_listed_paths(inputs)
    sources = find_input_sources(inputs, folder, listed)
    folder = choose_run_folder(folder, share, **continues)
    check_colors(pictures)
    if share.devices:
        from camcli.cli.runners.run_devices import run_devices

        return run_devices(context, share, folder, len(sources), listed)

    model_options = replace(model_options, device=choose_local_device(speed.device, share))
    loaded = load_chosen_model(name, model_options)

    from camcli.cli.runners.measure_scale import measure_scale
    from camcli.cli.runners.run_explain import run_explain
    from camcli.engine.plan import plan_suitable_methods
    from camcli.runs.explain_run import ExplainTask
    from camcli.runs.run_config import RunConfig
    from camcli.runs.shard_batches import create_shard_entry, take_shard
    from camcli.runs.similarity import bind_target

    network, bound = bind_target(loaded, targets, image.fit)
    print_many_classes_notice(bound, kinds)
    plan = plan_suitable_methods(
        network, methods, options.layer_specs, options.create_plan_options()
    )
    print_left_out(plan.left_out)
    config = RunConfig(
        model=network,
        requests=plan.requests,
        target=bound,
        fit=image.fit,
        picture_bands=picture_bands,
        max_pixels=image.max_pixels,
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
    style = create_drawing_style(
        pictures,
        network.input_size,
        caption=output.caption,
        with_boxes="boxes" in kinds,
        value_range=measure_scale(config, sources, scale, output.format_),
    )
    warn_of_undrawable_names(network.labels.names, kinds)
    shard_entry: dict[str, Any] = {}
    if share.shard:
        shard_entry = {"shard": create_shard_entry(sources, config.batch_size, share.shard)}
        sources = take_shard(sources, config.batch_size, share.shard)
    # The scale of a run depends on its images: a resumed run with others would differ.
    scale_name = str(style.value_range or output.scale)
    params = {**context.params, "scale": scale_name, "save": save}
    weights_file = model.checkpoint or _find_model_file(name)
    manifest = _create_document(config, plan, params, weights_file, len(sources))
    with open_output_folder(folder, EXPLAIN_FOLDER) as own_folder:
        task = ExplainTask(
            config=config,
            sources=sources,
            write_files=_create_writer(network, kinds, own_folder, style),
            output=own_folder,
            manifest={**manifest, **shard_entry},
            overwrite=output.overwrite,
            resume=output.resume,
            stop_on_error=output.on_error == "stop",
        )
        status = run_explain(
            task,
            output.format_,
            sheet_style=style if SHEET in kinds else None,
            sharing=share,
            box_format=output.box_format,
            show=_prepare_show(style) if output.show else None,
        )
        if output.report:
            print_report(own_folder)
    return status or int(bool(plan.left_out))


def _prepare_show(style: DrawingStyle) -> OverlayShow | None:
    from camcli.cli.runners.show_overlays import create_overlay_show

    return create_overlay_show(style)


def _create_writer(
    network: Model, kinds: Sequence[str], folder: Path, style: DrawingStyle
) -> Callable[[Result], Result]:
    """Create the function that writes the files of one result."""
    from camcli.io.writers import write_result

    slugs = create_class_slugs(network.labels)
    return partial(write_result, kinds=kinds, style=style, output=folder, slugs=slugs)


def _create_document(
    config: RunConfig,
    plan: SuitablePlan,
    params: Mapping[str, Any],
    weights_file: Path | None,
    image_count: int,
) -> dict[str, Any]:
    """The start of run.json: the network, the options that decide the results, what is left out."""
    from camcli.runs.manifest import create_manifest, create_model_entry

    own = {name: value for name, value in params.items() if name not in NON_RESULT_OPTIONS}
    settings = create_result_settings(own) | {
        "model": config.model.name,
        "method": [request.method.name for request in config.requests],
        **_create_block_settings(config),
    }
    entry = create_model_entry(config.model, weights_file)
    manifest = create_manifest(config, entry, settings, sys.argv[1:], image_count)
    return {**manifest, "left_out": dict(plan.left_out)}


def _create_block_settings(config: RunConfig) -> dict[str, Any]:
    """The blocks that the user chose for methods that join blocks by themselves.

    Earlier versions ignored the choice, so their runs must not be resumed.
    """
    chosen = [
        [request.method.name, [layer.name for layer in request.source_layers]]
        for request in config.requests
        if request.has_chosen_blocks
    ]
    return {"chosen_blocks": chosen} if chosen else {}


def _find_model_file(name: str | None) -> Path | None:
    """The weights file, if `--model` names one."""
    path = (name or "").removeprefix("program:")
    return Path(path) if os.path.isfile(path) else None
