"""`camcli.evaluate_localization`: its arguments become a configuration, as those of the CLI do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from camcli.core.boxes import BoxSelection
from camcli.core.types import FitMode
from camcli.engine.plan import PlanOptions, plan_layer_specs
from camcli.engine.refine_options import parse_refine_options
from camcli.engine.smoothing import parse_smoothing_options
from camcli.evaluation.datasets.reader import DatasetPaths
from camcli.evaluation.datasets.reader_registry import read_dataset
from camcli.evaluation.localization import GalleryChoice, LocalizationConfig, run_localization
from camcli.evaluation.localization_report import LocalizationReport
from camcli.evaluation.predictions import ANNOTATED_CLASS, ModelMaps
from camcli.methods.option_parsing import create_seed_options, parse_methods
from camcli.models.introspection.selectors import BlockChoice, create_layer_specs
from camcli.models.model import Model
from camcli.runs.run_config import RunConfig


def evaluate_localization(
    model: Model,
    dataset: str | Path | DatasetPaths,
    *,
    method: str | Sequence[str] | None = None,
    layers: str | Sequence[str] | None = None,
    block: BlockChoice = None,
    fusion: str | None = None,
    smooth: str = "none",
    refine: str = "none",
    classes: Sequence[str] = (),
    limit: int | None = None,
    strict: bool = False,
    threshold: str | float | None = None,
    boxes: BoxSelection = "largest",
    fit: FitMode = "squash",
    batch_size: int = 8,
    workers: int = 2,
    resamples: int = 1000,
    seed: int = 0,
    output: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    gallery: GalleryChoice = "examples",
) -> LocalizationReport:
    """Evaluate the maps and boxes of a model against the ground truth of a data set.

    `dataset` is the path of a folder or file in any format that camcli reads; DatasetPaths also
    choose a split, or other places for images and annotations. Each method with
    each of the `layers` gives a row. A method may have options: `rise:masks=500`. `output` is the
    folder for the report, the scores of each image and the pictures. The other arguments are the
    options of `camcli evaluate localization`. Raises UsageError, MethodError or LayerError for an
    argument that does not fit the model or the data set, OutputError if files cannot be written.
    """
    methods = parse_methods(method) if method else []
    smoothing = parse_smoothing_options(smooth, seed, fit)
    options = create_seed_options(methods, seed)
    plan_options = PlanOptions(
        fusion=fusion, options=options, smoothing=smoothing, refine=parse_refine_options(refine)
    )
    layer_specs = create_layer_specs(layers, block)
    requests = plan_layer_specs(model, methods, layer_specs, plan_options)
    run_config = RunConfig(
        model=model,
        requests=requests,
        target=ANNOTATED_CLASS,
        fit=fit,
        batch_size=batch_size,
        workers=workers,
        threshold=threshold,
        box_selection=boxes,
        smoothing=smoothing,
    )
    folder = Path(output) if output is not None else None
    paths = dataset if isinstance(dataset, DatasetPaths) else DatasetPaths(Path(dataset))
    if folder is not None:
        paths = replace(paths, skip_folder=folder)
    config = LocalizationConfig(
        paths=paths,
        dataset=read_dataset(paths),
        class_filter=classes,
        limit=limit,
        strict=strict,
        fit=fit,
        resamples=resamples,
        seed=seed,
        output=folder,
        overwrite=overwrite,
        gallery=gallery,
        resume=resume,
        settings={
            "fusion": fusion,
            "smooth": smooth,
            "refine": refine,
            "boxes": boxes,
            "fit": fit,
        },
    )
    return run_localization(config, [ModelMaps(run_config)])
