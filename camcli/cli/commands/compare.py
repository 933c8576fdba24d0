"""`camcli compare`: methods, layers or models side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from camcli.cli import console, options
from camcli.core.errors import MethodError, UsageError
from camcli.engine import targets
from camcli.io import discovery as sources
from camcli.io import files
from camcli.methods.registry import METHODS, Method

if TYPE_CHECKING:
    from camcli.runs.comparison import Row

ALL, CHEAP = "all", "all-cheap"


def compare(
    inputs: Annotated[
        list[str],
        Argument(metavar="INPUT...", help="Files, folders, globs, or - for a list on stdin."),
    ],
    model: options.ModelName = None,
    models: Annotated[
        str | None, Option(metavar="LIST", help="Several models, parted by commas: a row each.")
    ] = None,
    checkpoint: options.Checkpoint = None,
    labels: options.LabelFile = None,
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
    block: options.Block = None,
    fusion: options.FusionName = None,
    target: Annotated[str, Option(help="As for explain.")] = "predicted",
    head: options.HeadName = None,
    smooth: options.Smooth = "none",
    set_: options.Settings = None,
    seed: options.Seed = 0,
    output: Annotated[Path, Option(metavar="DIR", help="Where files go.")] = Path("camcli-compare"),
    overwrite: options.Overwrite = False,
    threshold: options.Threshold = None,
    fit: options.FitName = "squash",
    size: options.Size = None,
    mean: options.Mean = None,
    std: options.Std = None,
    interpolation: options.Interpolation = None,
    batch_size: options.BatchSize = None,
    device: options.Device = "auto",
    format_: options.FormatName = "auto",
) -> int:
    """Methods, layers or models side by side: one picture an image, rank correlation and time."""
    wanted, must = _methods(method or [CHEAP])
    settings = options.settings(set_ or [], wanted, seed)
    smoothing = options.smoothing(smooth, seed, fit)
    normalised = options.transform(mean, std, interpolation)
    level, input_size = options.threshold(threshold), options.size(size)
    bind = targets.parse(target)
    names = options.models(model, models, checkpoint)
    options.one_choice_of_layers(layers, block)
    if fusion == "none":
        raise UsageError("--fusion none: give each layer a --layers of its own")
    options.must_exist("--checkpoint", checkpoint)
    options.must_exist("--labels", labels)
    options.refuse_existing_run(output, overwrite, options.COMPARED)
    listed = sources.read_list(sys.stdin.read()) if "-" in inputs else []
    found = sources.find(inputs, listed, skip=output)

    from camcli.cli.runners.compare import Sheet
    from camcli.engine import plan
    from camcli.models import model as loading
    from camcli.runs.comparison import row
    from camcli.runs.config import Job

    specs: Sequence[str | None] = list(dict.fromkeys(layers or [])) or [None]
    rows: list[Row] = []
    refused: dict[str, str] = {}
    for name in names:
        known = name if name or checkpoint else plan.default_model(wanted if must else [])
        loaded = loading.load_model(
            *(known, checkpoint, labels, input_size, device),
            output_activation=head,
            transform_overrides=normalised,
        )
        console.note(loaded.note)
        job = Job(
            *(loaded, (), bind(loaded.labels), fit),
            options.batch_size(batch_size, loaded.device.type, fit),
            *(1, level, "largest", smoothing),
        )
        for spec in specs:
            told = (loaded.name if len(names) > 1 else "", str(spec) if len(specs) > 1 else "")
            # What reads layers of its own has a place in the first row only.
            asked = [m for m in wanted if m.per_layer or spec == specs[0]]
            found_out = plan.separately(loaded, asked, spec, block, fusion, settings, smoothing)
            planned = dict(zip((m.name for m in asked), found_out, strict=True))
            rows.append(row(*told, job, wanted, planned))
            refused |= rows[-1].refused
    if refused and (must or len(refused) == len(wanted)):
        raise MethodError(next(iter(refused.values())))
    kept = [c for c in range(len(wanted)) if any(r.jobs[c] for r in rows)]
    left = [m.name for c, m in enumerate(wanted) if c not in kept]
    if left:
        console.say(f"left out, for the model has no place for them: {', '.join(left)}")
    slugs = files.class_slugs(rows[0].base.model.labels)
    columns = tuple(wanted[c].name for c in kept)
    sheet = Sheet(columns, tuple(r.only(kept) for r in rows), output, slugs, must)
    return sheet.run(found, overwrite, format_)


def _methods(given: Sequence[str]) -> tuple[list[Method], bool]:
    """The methods that are named, and whether each must apply: of `all` those that can."""
    names = [part.strip() for name in given for part in name.split(",") if part.strip()]
    if not {*names} & {ALL, CHEAP}:
        return options.chosen(given), True
    if len(names) > 1:
        raise UsageError(f"--method {ALL} and {CHEAP} stand alone")
    every = METHODS.values()
    return [m for m in every if ALL in names or not any("N " in cost for cost in m.costs)], False
