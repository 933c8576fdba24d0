"""`camcli evaluate faithfulness`: does the network use what the map shows?"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from typer import Option

from camcli.cli.arguments import InputArguments, MethodArguments, ModelArguments
from camcli.cli.declarations import (
    METHOD,
    BatchSize,
    Device,
    FormatName,
    Inputs,
    LayerSpecs,
    MethodNames,
    Overwrite,
    Workers,
)
from camcli.cli.evaluate_declarations import ChartFormatName, MapFolders, Resamples
from camcli.cli.faithfulness_declarations import FaithfulnessArguments
from camcli.cli.input_sources import find_input_sources
from camcli.cli.loading import choose_model_name, load_chosen_model
from camcli.cli.options import (
    check_map_folders,
    check_no_existing_run,
    check_resume_options,
    choose_batch_size,
    choose_worker_count,
    parse_method_options,
    parse_model_options,
    parse_picture_bands,
)
from camcli.cli.output_folder import (
    choose_output_folder,
    declare_output_folder,
    open_output_folder,
)
from camcli.engine.targets import DEFAULT_TARGET, parse_target
from camcli.io.file_names import IMAGE_SCORES_FILE
from camcli.io.run_folders import FAITHFULNESS_FOLDER
from camcli.methods.option_parsing import parse_methods

TargetSpec = Annotated[
    str,
    Option(
        "--target",
        "-t",
        metavar="SPEC",
        help="Measure the confidence of this class: predicted, an index, a name, folder, or"
        " @targets.csv.",
        rich_help_panel=METHOD,
    ),
]


def faithfulness(
    inputs: Inputs,
    *,
    model: ModelArguments,
    method: MethodNames = None,
    layers: LayerSpecs = None,
    target: TargetSpec = DEFAULT_TARGET,
    method_arguments: MethodArguments,
    evaluation: FaithfulnessArguments,
    maps: MapFolders = None,
    image: InputArguments,
    output: Annotated[
        Path | None, declare_output_folder(FAITHFULNESS_FOLDER, "--resume or --overwrite")
    ] = None,
    overwrite: Overwrite = False,
    resamples: Resamples = 1000,
    chart_format: ChartFormatName = "png",
    format_: FormatName = "auto",
    batch_size: BatchSize = None,
    device: Device = "auto",
    workers: Workers = None,
) -> int:
    """Measure whether the network uses what maps show, without any labels.

    camcli removes pixels in the order of each map, and reads the confidence again: ROAD, deletion,
    insertion, average drop and more, each beside baselines that do not see the network.
    """
    wanted = parse_methods(method) if method else []
    options = parse_method_options(wanted, method_arguments, layers, image.fit)
    model_options = parse_model_options(model, image, device)
    parse_target(target)  # a wrong one is told before the network is loaded
    picture_bands = parse_picture_bands(image.rgb)
    map_folders = list(dict.fromkeys(maps or []))
    check_map_folders(map_folders)
    check_resume_options(overwrite, evaluation.resume)
    continues = overwrite or evaluation.resume
    folder = choose_output_folder(output, FAITHFULNESS_FOLDER, continues=continues)
    sources = find_input_sources(inputs, folder)
    check_no_existing_run(folder, continues, IMAGE_SCORES_FILE)
    name = choose_model_name(model.model, model_options, wanted, options.layer_specs)

    from camcli.evaluation.faithfulness.faithfulness_options import (
        FaithfulnessOptions,
        check_faithfulness_options,
        parse_limits,
    )

    chosen = FaithfulnessOptions(
        metrics=evaluation.metrics,
        steps=evaluation.steps,
        blur=evaluation.blur,
        cells=evaluation.cells,
        baselines=evaluation.baselines,
        target=target,
        limit=evaluation.limit,
        resamples=resamples,
        seed=method_arguments.seed,
        overwrite=overwrite,
        resume=evaluation.resume,
        sanity=evaluation.sanity,
        chart_format=chart_format,
    )
    check_faithfulness_options(chosen, image.fit)
    limits = parse_limits(evaluation.fail_under or [], evaluation.fail_over or [], chosen.metrics)

    from camcli.cli.runners.run_faithfulness_command import run_faithfulness_command
    from camcli.evaluation.faithfulness.faithfulness_evaluation import (
        create_faithfulness_config,
        plan_rows,
    )
    from camcli.runs.run_config import RunConfig
    from camcli.runs.similarity import bind_target

    network, bound = bind_target(load_chosen_model(name, model_options), target, image.fit)
    plan_options = options.create_plan_options()
    config = RunConfig(
        model=network,
        requests=plan_rows(network, wanted, options.layer_specs, plan_options, chosen, map_folders),
        target=bound,
        fit=image.fit,
        picture_bands=picture_bands,
        max_pixels=image.max_pixels,
        batch_size=choose_batch_size(batch_size, network.device.type, image.fit),
        workers=workers or choose_worker_count(),
        smoothing=options.smoothing,
    )
    settings = {
        "set": method_arguments.set_ or [],
        "fusion": method_arguments.fusion,
        "smooth": method_arguments.smooth,
        "refine": method_arguments.refine,
        "head": model.head,
    }
    task = create_faithfulness_config(config, sources, chosen, map_folders, settings, sys.argv[1:])
    with open_output_folder(folder, FAITHFULNESS_FOLDER) as own_folder:
        return run_faithfulness_command(replace(task, output=own_folder), limits, format_)
