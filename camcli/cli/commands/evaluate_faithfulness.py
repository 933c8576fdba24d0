"""`camcli evaluate faithfulness`: does the network use what the map shows?"""

from __future__ import annotations

import sys
from pathlib import Path

from camcli.cli.arguments import InputArguments, MethodArguments, ModelArguments
from camcli.cli.declarations import (
    BatchSize,
    Device,
    FormatName,
    Inputs,
    LayerSpecs,
    MethodNames,
    OutputFolder,
    Overwrite,
    TargetSpec,
    Workers,
)
from camcli.cli.evaluate_declarations import MapFolders, Resamples
from camcli.cli.faithfulness_declarations import FaithfulnessArguments
from camcli.cli.loading import choose_model_name, load_chosen_model
from camcli.cli.options import (
    check_no_existing_run,
    check_resume_options,
    choose_batch_size,
    choose_worker_count,
    parse_method_options,
    parse_model_options,
)
from camcli.core.errors import UsageError
from camcli.engine.targets import parse_target
from camcli.evaluation.file_names import IMAGE_SCORES_FILE
from camcli.io.discovery import find_image_sources, parse_path_list
from camcli.methods.option_parsing import parse_methods


def faithfulness(
    inputs: Inputs,
    *,
    model: ModelArguments,
    method: MethodNames = None,
    layers: LayerSpecs = None,
    target: TargetSpec = "predicted",
    method_arguments: MethodArguments,
    evaluation: FaithfulnessArguments,
    maps: MapFolders = None,
    image: InputArguments,
    output: OutputFolder = Path("camcli-faith"),
    overwrite: Overwrite = False,
    resamples: Resamples = 1000,
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
    bind_target = parse_target(target)
    folders = list(dict.fromkeys(maps or []))
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"--maps {folder}: no such folder")
    check_resume_options(overwrite, evaluation.resume)
    listed = parse_path_list(sys.stdin.read()) if "-" in inputs else []
    sources = find_image_sources(inputs, listed, skip_folder=output)
    check_no_existing_run(output, overwrite or evaluation.resume, IMAGE_SCORES_FILE)

    from camcli.evaluation.faithfulness.faithfulness_evaluation import (
        FaithfulnessOptions,
        check_faithfulness_options,
        create_faithfulness_config,
        parse_limits,
        plan_rows,
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
        output=output,
        overwrite=overwrite,
        resume=evaluation.resume,
        sanity=evaluation.sanity,
    )
    check_faithfulness_options(chosen, image.fit)
    limits = parse_limits(evaluation.fail_under or [], evaluation.fail_over or [], chosen.metrics)

    from camcli.cli.runners.run_faithfulness_command import run_faithfulness_command
    from camcli.runs.run_config import RunConfig

    name = choose_model_name(model.model, model_options, wanted)
    network = load_chosen_model(name, model_options)
    plan_options = options.create_plan_options()
    config = RunConfig(
        model=network,
        requests=plan_rows(network, wanted, layers or [], plan_options, chosen, folders),
        target=bind_target(network.labels),
        fit=image.fit,
        batch_size=choose_batch_size(batch_size, network.device.type, image.fit),
        workers=workers or choose_worker_count(),
        smoothing=options.smoothing,
    )
    settings = {
        "set": method_arguments.set_ or [],
        "fusion": method_arguments.fusion,
        "smooth": method_arguments.smooth,
        "head": model.head,
    }
    task = create_faithfulness_config(config, sources, chosen, folders, settings, sys.argv[1:])
    return run_faithfulness_command(task, limits, format_)
