"""`camcli compare`: compare methods, layers or models side by side."""

from __future__ import annotations

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
from camcli.cli.input_sources import find_input_sources
from camcli.cli.loading import choose_model_name, load_chosen_model, print_left_out
from camcli.cli.options import (
    MethodOptions,
    check_grabcut_available,
    check_no_existing_run,
    choose_batch_size,
    parse_method_options,
    parse_model_names,
    parse_model_options,
    parse_picture_bands,
)
from camcli.cli.output_folder import choose_output_folder, open_output_folder
from camcli.cli.picture_arguments import (
    PictureArguments,
    check_colors,
    create_drawing_style,
    warn_of_undrawable_names,
)
from camcli.core.errors import MethodError, UsageError
from camcli.core.thresholds import parse_threshold
from camcli.engine.providers.provider_registry import takes_layers
from camcli.engine.targets import DEFAULT_TARGET, parse_target
from camcli.io.file_names import COMPARISON_FILE
from camcli.io.files import create_class_slugs
from camcli.io.run_folders import COMPARE_FOLDER
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
    pictures: PictureArguments,
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
    picture_bands = parse_picture_bands(image.rgb)
    threshold = parse_threshold(output.threshold)
    suitable = methods if all_must_apply else []
    names = [
        choose_model_name(name, model_options, suitable, options.layer_specs)
        for name in parse_model_names(model.model, models, model.checkpoint)
    ]
    if options.fusion == "none":
        raise UsageError("--fusion none does not work here; write --layers each:stage1..5")
    folder = choose_output_folder(output.output, COMPARE_FOLDER, continues=output.overwrite)
    check_no_existing_run(folder, output.overwrite, COMPARISON_FILE)
    sources = find_input_sources(inputs, folder)

    check_colors(pictures)
    check_grabcut_available(output.boxes)

    from camcli.cli.runners.run_compare import run_compare
    from camcli.engine.chosen_layers import split_layer_specs
    from camcli.runs.compare_run import CompareTask
    from camcli.runs.run_config import RunConfig
    from camcli.runs.similarity import bind_target

    rows: list[ComparisonRow] = []
    for name in names:
        network, bound = bind_target(load_chosen_model(name, model_options), targets, image.fit)
        specs = split_layer_specs(network, options.layer_specs)
        config = RunConfig(
            model=network,
            requests=(),
            target=bound,
            fit=image.fit,
            picture_bands=picture_bands,
            max_pixels=image.max_pixels,
            batch_size=choose_batch_size(batch_size, network.device.type, image.fit),
            workers=1,
            threshold=threshold,
            box_selection="largest" if output.boxes == "none" else output.boxes,
            smoothing=options.smoothing,
        )
        label = network.name if len(names) > 1 else ""
        rows += [_create_row(config, options, specs, spec, label) for spec in specs]
    has_refusals = _report_refusals(rows, methods, all_must_apply)
    columns = _find_used_columns(rows, methods, is_quiet=all_must_apply)
    network = rows[0].base_config.model
    warn_of_undrawable_names(network.labels.names, ["compare"])
    has_boxes = output.boxes != "none"
    with open_output_folder(folder, COMPARE_FOLDER) as own_folder:
        task = CompareTask(
            method_names=tuple(methods[column].name for column in columns),
            rows=tuple(row.select_columns(columns) for row in rows),
            sources=sources,
            output=own_folder,
            class_slugs=[create_class_slugs(row.base_config.model.labels) for row in rows],
            style=create_drawing_style(pictures, network.input_size, with_boxes=has_boxes),
        )
        status = run_compare(
            task, output.overwrite, fail_on_blank=all_must_apply, output_format=output.format_
        )
    return status or int(has_refusals)


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
    planned = [m for m in options.methods if takes_layers(m) or spec == specs[0]]
    plans = iter_method_plans(config.model, planned, options.create_plan_options(spec))
    plan_by_method = dict(zip((m.name for m in planned), plans, strict=True))
    layers_label = str(spec) if len(specs) > 1 else ""
    return create_comparison_row(model_label, layers_label, config, options.methods, plan_by_method)


def _report_refusals(
    rows: Sequence[ComparisonRow], methods: Sequence[Method], all_must_apply: bool
) -> bool:
    """Print the named methods that are left out, and return whether there are any.

    Raises the first refusal if no method is left.
    """
    refused: dict[str, str] = {}
    for row in rows:
        refused |= row.reason_by_method
    if refused and not any(config for row in rows for config in row.configs):
        raise MethodError(next(iter(refused.values())))
    if all_must_apply:
        print_left_out(refused)
    return bool(refused) and all_must_apply


def _find_used_columns(
    rows: Sequence[ComparisonRow], methods: Sequence[Method], *, is_quiet: bool
) -> list[int]:
    """The methods that at least one row uses, by number; print the names of the others."""
    used = [c for c in range(len(methods)) if any(row.configs[c] for row in rows)]
    unused = [method.name for c, method in enumerate(methods) if c not in used]
    if unused and not is_quiet:
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
    every = [m for m in METHODS.values() if not m.find_problem(m.options)]
    return every if ALL_KEYWORD in names else list_cheap_methods(), False
