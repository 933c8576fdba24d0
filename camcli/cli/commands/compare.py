"""`camcli compare`: methods, layers or models side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from camcli.cli.console import print_info, print_notice
from camcli.cli.options import (
    COMPARISON_FILE,
    BatchSize,
    Block,
    Checkpoint,
    Device,
    FitName,
    FormatName,
    FusionName,
    HeadName,
    Interpolation,
    LabelFile,
    Mean,
    ModelName,
    Overwrite,
    Seed,
    Settings,
    Size,
    Smooth,
    Std,
    Threshold,
    check_file_exists,
    check_layer_options,
    check_no_existing_run,
    choose_batch_size,
    parse_input_size,
    parse_method_settings,
    parse_methods,
    parse_model_names,
    parse_smoothing_options,
    parse_threshold,
    parse_transform_options,
)
from camcli.core.errors import MethodError, UsageError
from camcli.engine.targets import parse_target
from camcli.io.discovery import find_image_sources, parse_path_list
from camcli.io.files import create_class_slugs
from camcli.methods.registry import METHODS, Method

if TYPE_CHECKING:
    from camcli.runs.comparison import ComparisonRow

ALL_KEYWORD, CHEAP_KEYWORD = "all", "all-cheap"


def compare(
    inputs: Annotated[
        list[str],
        Argument(metavar="INPUT...", help="Files, folders, globs, or - for a list on stdin."),
    ],
    model: ModelName = None,
    models: Annotated[
        str | None, Option(metavar="LIST", help="Several models, parted by commas: a row each.")
    ] = None,
    checkpoint: Checkpoint = None,
    labels: LabelFile = None,
    method: Annotated[
        list[str] | None,
        Option(
            "--method",
            help="See `camcli methods`; may be given several times; or all, or all-cheap: those"
            " that need no more than a backward pass or two (the default).",
        ),
    ] = None,
    layers: Annotated[
        list[str] | None, Option(metavar="SPEC", help="As for explain; each --layers is a row.")
    ] = None,
    block: Block = None,
    fusion: FusionName = None,
    target: Annotated[str, Option(help="As for explain.")] = "predicted",
    head: HeadName = None,
    smooth: Smooth = "none",
    set_: Settings = None,
    seed: Seed = 0,
    output: Annotated[Path, Option(metavar="DIR", help="Where files go.")] = Path("camcli-compare"),
    overwrite: Overwrite = False,
    threshold: Threshold = None,
    fit: FitName = "squash",
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    interpolation: Interpolation = None,
    batch_size: BatchSize = None,
    device: Device = "auto",
    format_: FormatName = "auto",
) -> int:
    """Methods, layers or models side by side: one picture an image, rank correlation and time."""
    wanted, must = _choose_methods(method or [CHEAP_KEYWORD])
    settings = parse_method_settings(set_ or [], wanted, seed)
    smoothing = parse_smoothing_options(smooth, seed, fit)
    normalised = parse_transform_options(mean, std, interpolation)
    level, input_size = parse_threshold(threshold), parse_input_size(size)
    bind = parse_target(target)
    names = parse_model_names(model, models, checkpoint)
    check_layer_options(layers, block)
    if fusion == "none":
        raise UsageError("--fusion none: give each layer a --layers of its own")
    check_file_exists("--checkpoint", checkpoint)
    check_file_exists("--labels", labels)
    check_no_existing_run(output, overwrite, COMPARISON_FILE)
    listed = parse_path_list(sys.stdin.read()) if "-" in inputs else []
    found = find_image_sources(inputs, listed, skip_folder=output)

    from camcli.cli.runners.compare import CompareRun
    from camcli.engine.plan import PlanOptions, choose_default_model, iter_method_plans
    from camcli.models.model import load_model
    from camcli.runs.comparison import create_comparison_row
    from camcli.runs.config import RunConfig

    specs: Sequence[str | None] = list(dict.fromkeys(layers or [])) or [None]
    rows: list[ComparisonRow] = []
    refused: dict[str, str] = {}
    for name in names:
        known = name if name or checkpoint else choose_default_model(wanted if must else [])
        loaded = load_model(
            *(known, checkpoint, labels, input_size, device),
            output_activation=head,
            transform_overrides=normalised,
        )
        print_notice(loaded.note)
        job = RunConfig(
            *(loaded, (), bind(loaded.labels), fit),
            choose_batch_size(batch_size, loaded.device.type, fit),
            *(1, level, "largest", smoothing),
        )
        for spec in specs:
            told = (loaded.name if len(names) > 1 else "", str(spec) if len(specs) > 1 else "")
            # What reads layers of its own has a place in the first row only.
            asked = [m for m in wanted if m.per_layer or spec == specs[0]]
            found_out = iter_method_plans(
                loaded,
                asked,
                PlanOptions(
                    layer_spec=spec,
                    block=block,
                    fusion=fusion,
                    options=settings,
                    smoothing=smoothing,
                ),
            )
            planned = dict(zip((m.name for m in asked), found_out, strict=True))
            rows.append(create_comparison_row(*told, job, wanted, planned))
            refused |= rows[-1].reason_by_method
    if refused and (must or len(refused) == len(wanted)):
        raise MethodError(next(iter(refused.values())))
    kept = [c for c in range(len(wanted)) if any(r.configs[c] for r in rows)]
    left = [m.name for c, m in enumerate(wanted) if c not in kept]
    if left:
        print_info(f"left out, for the model has no place for them: {', '.join(left)}")
    slugs = create_class_slugs(rows[0].base_config.model.labels)
    columns = tuple(wanted[c].name for c in kept)
    sheet = CompareRun(columns, tuple(r.select_columns(kept) for r in rows), output, slugs, must)
    return sheet.run(found, overwrite, format_)


def _choose_methods(method_options: Sequence[str]) -> tuple[list[Method], bool]:
    """The methods that are named, and whether each must apply: of `all` those that can."""
    names = [part.strip() for name in method_options for part in name.split(",") if part.strip()]
    if not {*names} & {ALL_KEYWORD, CHEAP_KEYWORD}:
        return parse_methods(method_options), True
    if len(names) > 1:
        raise UsageError(f"--method {ALL_KEYWORD} and {CHEAP_KEYWORD} stand alone")
    every = METHODS.values()
    return [
        m for m in every if ALL_KEYWORD in names or not any("N " in cost for cost in m.costs)
    ], False
