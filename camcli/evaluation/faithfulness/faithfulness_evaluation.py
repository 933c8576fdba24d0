"""`camcli.evaluate_faithfulness`: its arguments become a configuration, as those of the CLI do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from camcli.core.errors import UsageError
from camcli.core.types import Failure, FitMode, ImageSource
from camcli.engine.plan import PlanOptions, plan_layer_specs
from camcli.engine.refine_options import parse_refine_options
from camcli.engine.request import Request
from camcli.engine.smoothing import parse_smoothing_options
from camcli.engine.target_weights import compute_one_hot_weights
from camcli.evaluation.datasets.annotations import hash_image_name
from camcli.evaluation.faithfulness.faithfulness_metrics import parse_metrics
from camcli.evaluation.faithfulness.faithfulness_options import (
    DEFAULT_BASELINES,
    RANDOM_CAM,
    FaithfulnessOptions,
    check_faithfulness_options,
    parse_baselines,
    parse_blur,
    parse_sanity_checks,
)
from camcli.evaluation.faithfulness.faithfulness_report import FaithfulnessReport
from camcli.evaluation.faithfulness.faithfulness_run import FaithfulnessConfig, run_faithfulness
from camcli.evaluation.faithfulness.map_preparation import MapRows
from camcli.evaluation.faithfulness.masked_passes import PassPlan
from camcli.evaluation.map_files import MapFolder
from camcli.io.discovery import find_image_sources
from camcli.methods.option_parsing import create_seed_options, parse_methods
from camcli.methods.registry import Method, find_method
from camcli.models.introspection.selectors import BlockChoice, LayerChoice, create_layer_specs
from camcli.models.model import Model
from camcli.runs.manifest import create_manifest, create_model_entry
from camcli.runs.run_config import RunConfig
from camcli.runs.similarity import bind_target


def evaluate_faithfulness(
    model: Model,
    images: str | Path | Sequence[str | Path],
    *,
    method: str | Sequence[str] | None = None,
    layers: LayerChoice = None,
    block: BlockChoice = None,
    fusion: str | None = None,
    smooth: str = "none",
    refine: str = "none",
    maps: Sequence[str | Path] = (),
    metrics: str = "standard",
    baselines: str = DEFAULT_BASELINES,
    target: str = "predicted",
    steps: int = 20,
    blur: str = "rise",
    cells: int = 7,
    sanity: str = "none",
    fit: FitMode = "squash",
    batch_size: int = 8,
    workers: int = 2,
    limit: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
    output: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> FaithfulnessReport:
    """Measure whether a model uses what the maps of a method show.

    Pixels are removed in the order of each map, and the model's confidence is read again. `images`
    are files or folders; they need no labels. `maps` are folders with maps of other programs,
    NAME.npy or the .npz files of `--save array`, which are scored in the same way. Every row is
    compared with its best baseline on the same images. The other arguments are the options of
    `camcli evaluate faithfulness`. Raises UsageError, MethodError or LayerError for an argument
    that does not fit, OutputError if files cannot be written.
    """
    methods = parse_methods(method) if method else []
    smoothing = parse_smoothing_options(smooth, seed, fit)
    options = FaithfulnessOptions(
        metrics=metrics,
        steps=steps,
        blur=blur,
        cells=cells,
        baselines=baselines,
        target=target,
        limit=limit,
        resamples=resamples,
        seed=seed,
        output=Path(output) if output is not None else None,
        overwrite=overwrite,
        resume=resume,
        sanity=sanity,
    )
    names = [str(images)] if isinstance(images, str | Path) else [str(image) for image in images]
    own = create_seed_options(methods, seed)
    plan_options = PlanOptions(
        fusion=fusion, options=own, smoothing=smoothing, refine=parse_refine_options(refine)
    )
    specs = create_layer_specs(layers, block)
    run_config = RunConfig(
        model=model,
        requests=plan_rows(model, methods, specs, plan_options, options, maps),
        target=bind_target(model, target, fit)[1],
        fit=fit,
        batch_size=batch_size,
        workers=workers,
        smoothing=smoothing,
    )
    sources = find_image_sources(names, [], skip_folder=options.output or Path("camcli-faith"))
    config = create_faithfulness_config(
        run_config, sources, options, [Path(folder) for folder in maps], {}, ()
    )
    return run_faithfulness(config)


def _check_has_confidence(run_config: RunConfig) -> None:
    """Refuse networks and targets without the probability of a class. Raises UsageError."""
    model, (rule, *_) = run_config.model, run_config.target.rules
    if model.output_kind not in ("softmax", "sigmoid", "undecided"):
        raise UsageError(f"{model.name} has no class probabilities, which faithfulness measures")
    if rule.weight_logits is not compute_one_hot_weights:
        raise UsageError(f"--target {rule.spec} does not work here: a contrast is no confidence")


def plan_rows(
    model: Model,
    methods: Sequence[Method],
    layer_specs: Sequence[str | None],
    plan_options: PlanOptions,
    options: FaithfulnessOptions,
    folders: Sequence[str | Path] = (),
) -> tuple[Request, ...]:
    """The requests of the methods, and of Random-CAM as the last one if it is a baseline.

    With map folders and without methods, the default method is left out.
    """
    requests: tuple[Request, ...] = ()
    if methods or not folders:
        requests = plan_layer_specs(model, methods, layer_specs, plan_options)
    if RANDOM_CAM in parse_baselines(options.baselines):
        random_cam = [find_method(RANDOM_CAM)]
        seeded = PlanOptions(options=create_seed_options(random_cam, options.seed))
        requests += plan_layer_specs(model, random_cam, [None], seeded)
    if not requests:
        raise UsageError("--baselines none with --maps alone leaves nothing to run; add --method")
    return requests


def create_faithfulness_config(
    run_config: RunConfig,
    sources: Sequence[ImageSource | Failure],
    options: FaithfulnessOptions,
    folders: Sequence[Path],
    settings: Mapping[str, Any],
    arguments: Sequence[str],
    weights_file: Path | None = None,
) -> FaithfulnessConfig:
    """Check the options and put an evaluation together. Raises UsageError."""
    check_faithfulness_options(options, run_config.fit)
    _check_has_confidence(run_config)
    chosen = limit_sources(sources, options.limit)
    baselines = parse_baselines(options.baselines)
    names = {source.name for source in chosen}
    map_rows = MapRows(
        model=run_config.model,
        requests=run_config.requests,
        folders=tuple(MapFolder.from_images(folder, names) for folder in folders),
        baselines=(
            *(b for b in baselines if b != RANDOM_CAM),
            *([RANDOM_CAM] * (RANDOM_CAM in baselines)),
        ),
        seed=options.seed,
        blur=parse_blur(options.blur),
        reads_true_class=options.target == "folder" or options.target.startswith("@"),
    )
    own = {
        "metrics": [metric.name for metric in parse_metrics(options.metrics)],
        "steps": options.steps,
        "blur": options.blur,
        "cells": options.cells,
        "baselines": list(baselines),
        "maps": [str(folder) for folder in folders],
        "target": options.target,
        "fit": run_config.fit,
        "seed": options.seed,
        "rows": [f"{row.method} {' '.join(row.layers)}".strip() for row in map_rows.rows],
    }
    entry = create_model_entry(run_config.model, weights_file)
    return FaithfulnessConfig(
        run_config=run_config,
        sources=chosen,
        map_rows=map_rows,
        plan=PassPlan(parse_metrics(options.metrics), options.steps, options.cells),
        manifest=create_manifest(run_config, entry, {**settings, **own}, arguments, len(chosen)),
        resamples=options.resamples,
        seed=options.seed,
        output=options.output,
        overwrite=options.overwrite,
        resume=options.resume,
        sanity_checks=parse_sanity_checks(options.sanity),
        chart_format=options.chart_format,
    )


def limit_sources(
    sources: Sequence[ImageSource | Failure], limit: int | None
) -> list[ImageSource | Failure]:
    """The first N images of a fixed shuffle, which depends on their names only."""
    if limit is None:
        return list(sources)
    shuffled = sorted(sources, key=lambda source: (hash_image_name(source.name), source.name))
    kept = {id(source) for source in shuffled[:limit]}
    return [source for source in sources if id(source) in kept]
