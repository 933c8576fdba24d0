"""`camcli layers`: list the layers of a model that can be explained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from camcli.cli.completions import complete_models
from camcli.cli.console import (
    print_data,
    print_info,
    print_json,
    print_notice,
    print_table,
)
from camcli.cli.declarations import (
    MODEL,
    NO_TYPE,
    OUTPUT,
    Checkpoint,
    Device,
    LogitsName,
    ModelName,
    Size,
)
from camcli.cli.layer_tree import print_layer_tree
from camcli.cli.options import check_file_exists, parse_input_size
from camcli.core.errors import LayerError, UsageError
from camcli.models.zoo.model_files import check_model_file

if TYPE_CHECKING:
    from camcli.core.types import Layer


def layers(
    name: Annotated[
        str | None,
        Argument(
            metavar="MODEL",
            help="Name the network; the same as --model.",
            autocompletion=complete_models,
        ),
    ] = None,
    model: ModelName = None,
    checkpoint: Checkpoint = None,
    weights: Annotated[
        bool,
        Option(
            "--weights/--no-weights",
            metavar=NO_TYPE,
            help="Load the weights; with --no-weights, camcli lists the layers without a download.",
            rich_help_panel=MODEL,
        ),
    ] = True,
    size: Size = None,
    every: Annotated[
        bool,
        Option(
            "--all",
            metavar=NO_TYPE,
            help="List every layer, not only stages and blocks.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    tree: Annotated[
        bool,
        Option(
            "--tree",
            metavar=NO_TYPE,
            help="Show every layer in the module tree, with the methods that can use it.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    format_: Annotated[
        Literal["table", "json", "jsonl"],
        Option(
            "--format",
            help="Print a table, one JSON document, or JSON lines.",
            rich_help_panel=OUTPUT,
        ),
    ] = "table",
    logits: LogitsName = None,
    device: Device = "auto",
) -> int:
    """List the layers of a model that can be explained.

    camcli shows each layer's name, the option that selects it, its shape and layout, and marks
    the default.
    """
    input_size = parse_input_size(size)
    check_model_file(name or model)
    check_file_exists("--checkpoint", checkpoint)
    if name and model:
        raise UsageError("MODEL and --model cannot be combined")

    from camcli.engine.chosen_layers import find_model_default_layer
    from camcli.engine.compatibility import find_model_live_layers
    from camcli.models.introspection.selectors import list_layer_options
    from camcli.models.model import load_model

    loaded = load_model(
        name or model,
        checkpoint,
        size=input_size,
        device=device,
        pretrained=weights,
        logits=logits,
    )
    print_notice(loaded.note)
    default = None
    with suppress(LayerError):  # without a default the list still helps
        default = find_model_default_layer(loaded)
    options = list_layer_options(loaded.layers)
    if tree and format_ == "table":
        print_layer_tree(loaded, default, options)
        return 0
    live = find_model_live_layers(loaded) if tree else frozenset()
    rows: list[dict[str, object]] = [
        {
            "layer": layer.name,
            "stage": layer.stage,
            "block": layer.block,
            "channels": layer.channels,
            "grid": list(layer.grid),
            "layout": layer.layout,
            "prefix_tokens": layer.prefix_token_count,
            "option": options[layer.name],
            "default": layer == default,
            **({"gradient": layer.name in live} if tree else {}),
        }
        for layer in loaded.layers
        if every or tree or layer == default or _is_numbered(layer, options[layer.name])
    ]
    if format_ == "json":
        print_json(rows)
        return 0
    if format_ == "jsonl":
        for row in rows:
            print_data(json.dumps(row))
        return 0
    head = ["layer", "option", "channels", "grid", "layout", ""]
    print_table([head, *map(_format_layer_cells, rows)])
    hidden = len(loaded.layers) - len(rows)
    print_info(
        f"{loaded.name} at {loaded.input_size[0]}x{loaded.input_size[1]}; {hidden} more with --all"
    )
    return 0


def _is_numbered(layer: Layer, option: str) -> bool:
    """Whether it is a stage, a block, or the layer that `--block N` selects."""
    return layer.stage is not None or layer.block is not None or option.startswith("--block")


def _format_layer_cells(row: Mapping[str, object]) -> list[str]:
    grid = "x".join(map(str, row["grid"])) if isinstance(row["grid"], list) else ""
    extra = f"+{row['prefix_tokens']} tokens" if row["prefix_tokens"] else ""
    mark = "default" if row["default"] else ""
    return [
        str(row["layer"]),
        str(row["option"]),
        str(row["channels"]),
        grid,
        f"{row['layout']} {extra}",
        mark,
    ]
