"""`camcli compare`: compare methods, layers or models side by side."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from typer import Option

from camcli.cli.arguments import (
    CompareOutputArguments,
    InputArguments,
    MethodArguments,
    ModelArguments,
)
from camcli.cli.completions import (
    ALL_KEYWORD,
    CHEAP_KEYWORD,
    complete_compared_methods,
)
from camcli.cli.console import print_info
from camcli.cli.declarations import (
    METHOD,
    BatchSize,
    Device,
    Inputs,
    LayerSpecs,
    ModelList,
    TargetSpecs,
)
from camcli.cli.loading import choose_model_name, load_chosen_model
from camcli.cli.options import (
    COMPARISON_FILE,
    MethodOptions,
    check_no_existing_run,
    choose_batch_size,
    parse_method_options,
    parse_model_names,
    parse_model_options,
)
from camcli.core.errors import MethodError, UsageError
from camcli.core.thresholds import parse_threshold
from camcli.engine.targets import DEFAULT_TARGET, parse_target
from camcli.io.discovery import find_image_sources, parse_path_list
from camcli.io.files import create_class_slugs
from camcli.methods.option_parsing import parse_methods
from camcli.methods.registry import METHODS, Method, list_cheap_methods

if TYPE_CHECKING:
    from camcli.runs.comparison import ComparisonRow
    from camcli.runs.run_config import RunConfig

ComparedMethods = Annotated[
    list[str] | None,
    Option(
        "--method",
        "-m",
        metavar="NAME",
        help="Compare these methods, see `camcli methods`; all: every method; all-cheap: those"
        " that need a forward pass and at most two backward passes.",
        show_default=CHEAP_KEYWORD,
        rich_help_panel=METHOD,
        autocompletion=complete_compared_methods,
    ),
]


def compare(
    inputs: Inputs,
    *,
    model: ModelArguments,
    models: ModelList = None,
    method: ComparedMethods = None,
    layers: LayerSpecs = None,
    target: TargetSpecs = None,
    method_arguments: MethodArguments,
    image: InputArguments,
    output: CompareOutputArguments,
    batch_size: BatchSize = None,
    device: Device = "auto",
) -> int:
    """Compare methods, layers or models side by side on the same images.

    camcli draws one picture per image, and prints rank correlations and times.
    """
    methods, all_must_apply = _choose_methods(method or [CHEAP_KEYWORD])
    options = parse_method_options(methods, method_arguments, layers, image.fit)
    targets = target or [DEFAULT_TARGET]
    parse_target(targets)  # a wrong one is told before the network is loaded
    model_options = parse_model_options(model, image, device)
    threshold = parse_threshold(output.threshold)
    names = parse_model_names(model.model, models, model.checkpoint)
    if options.fusion == "none":
        raise UsageError("--fusion none does not work here; repeat --layers for each layer")
    check_no_existing_run(output.output, output.overwrite, COMPARISON_FILE)
    listed = parse_path_list(sys.stdin.read()) if "-" in inputs else []
    sources = find_image_sources(inputs, listed, skip_folder=output.output)

    from camcli.cli.runners.run_compare import run_compare
    from camcli.runs.compare_run import CompareTask
    from camcli.runs.run_config import RunConfig
    from camcli.runs.similarity import bind_target

    specs: Sequence[str | None] = list(dict.fromkeys(layers or [])) or [None]
    rows: list[ComparisonRow] = []
    for name in names:
        chosen = choose_model_name(name, model_options, methods if all_must_apply else [])
        loaded = load_chosen_model(chosen, model_options)
        network, bound = bind_target(loaded, targets, image.fit)
        config = RunConfig(
            model=network,
            requests=(),
            target=bound,
            fit=image.fit,
            batch_size=choose_batch_size(batch_size, network.device.type, image.fit),
            workers=1,
            threshold=threshold,
            smoothing=options.smoothing,
        )
        label = network.name if len(names) > 1 else ""
        rows += [_create_row(config, options, specs, spec, label) for spec in specs]
    _check_refusals(rows, methods, all_must_apply)
    columns = _find_used_columns(rows, methods)
    task = CompareTask(
        method_names=tuple(methods[column].name for column in columns),
        rows=tuple(row.select_columns(columns) for row in rows),
        sources=sources,
        output=output.output,
        class_slugs=create_class_slugs(rows[0].base_config.model.labels),
    )
    return run_compare(
        task, output.overwrite, fail_on_blank=all_must_apply, output_format=output.format_
    )


def _create_row(
    config: RunConfig,
    options: MethodOptions,
    specs: Sequence[str | None],
    spec: str | None,
    model_label: str,
) -> ComparisonRow:
    """Plan each method by itself for one network and one `--layers`."""
    from camcli.engine.plan import iter_method_plans
    from camcli.runs.comparison import create_comparison_row

    # A method that chooses its own layers is drawn in the first row only.
    planned = [m for m in options.methods if m.per_layer or spec == specs[0]]
    plans = iter_method_plans(config.model, planned, options.create_plan_options(spec))
    plan_by_method = dict(zip((m.name for m in planned), plans, strict=True))
    layers_label = str(spec) if len(specs) > 1 else ""
    return create_comparison_row(model_label, layers_label, config, options.methods, plan_by_method)


def _check_refusals(
    rows: Sequence[ComparisonRow], methods: Sequence[Method], all_must_apply: bool
) -> None:
    """Raise the first refusal, if the user named the methods or if none is left."""
    refused: dict[str, str] = {}
    for row in rows:
        refused |= row.reason_by_method
    if refused and (all_must_apply or len(refused) == len(methods)):
        raise MethodError(next(iter(refused.values())))


def _find_used_columns(rows: Sequence[ComparisonRow], methods: Sequence[Method]) -> list[int]:
    """The methods that at least one row uses, by number; print the names of the others."""
    used = [c for c in range(len(methods)) if any(row.configs[c] for row in rows)]
    unused = [method.name for c, method in enumerate(methods) if c not in used]
    if unused:
        print_info(f"the model does not support these methods: {', '.join(unused)}")
    return used


def _choose_methods(method_options: Sequence[str]) -> tuple[list[Method], bool]:
    """The chosen methods, and whether all must apply; `all` leaves out those that do not."""
    names = [part.strip() for name in method_options for part in name.split(",") if part.strip()]
    if not {*names} & {ALL_KEYWORD, CHEAP_KEYWORD}:
        return parse_methods(method_options), True
    if len(names) > 1:
        raise UsageError(
            f"--method {ALL_KEYWORD} and {CHEAP_KEYWORD} cannot be combined with other methods"
        )
    return list(METHODS.values()) if ALL_KEYWORD in names else list_cheap_methods(), False
