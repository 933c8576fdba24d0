"""`camcli layers`: what can be tapped in a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Literal

from typer import Argument, Option

from camcli.cli.console import print_data, print_info, print_notice, print_table
from camcli.cli.layer_tree import print_layer_tree
from camcli.cli.options import (
    Checkpoint,
    Device,
    ModelName,
    Size,
    check_file_exists,
    parse_input_size,
)
from camcli.core.errors import LayerError, UsageError


def layers(
    name: Annotated[str | None, Argument(metavar="[MODEL]", help="Same as --model.")] = None,
    model: ModelName = None,
    checkpoint: Checkpoint = None,
    size: Size = None,
    device: Device = "auto",
    weights: Annotated[
        bool, Option(help="Off: random weights, for a look at a model that is not here.")
    ] = True,
    every: Annotated[
        bool, Option("--all", help="Every layer, not only stages and blocks.")
    ] = False,
    tree: Annotated[
        bool,
        Option("--tree", help="Every layer where it lies, and which methods can use it."),
    ] = False,
    format_: Annotated[Literal["table", "jsonl"], Option("--format")] = "table",
) -> int:
    """What can be tapped: name, stage or block, shape, layout; the default is marked."""
    input_size = parse_input_size(size)
    check_file_exists("--checkpoint", checkpoint)
    if name and model:
        raise UsageError("the model is named twice; give it once")

    from camcli.engine.compatibility import find_model_live_layers
    from camcli.engine.plan import find_model_default_layer
    from camcli.models.model import load_model

    loaded = load_model(
        name or model, checkpoint, size=input_size, device=device, pretrained=weights
    )
    print_notice(loaded.note)
    default = None
    with suppress(LayerError):  # a list of layers is what helps where no default can be found
        default = find_model_default_layer(loaded)
    if tree and format_ == "table":
        print_layer_tree(loaded, default)
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
            "default": layer == default,
            **({"gradient": layer.name in live} if tree else {}),
        }
        for layer in loaded.layers
        if every or tree or layer.stage is not None or layer.block is not None or layer == default
    ]
    if format_ == "jsonl":
        for row in rows:
            print_data(json.dumps(row))
        return 0
    head = ["layer", "as", "channels", "grid", "layout", ""]
    print_table([head, *map(_format_layer_cells, rows)])
    hidden = len(loaded.layers) - len(rows)
    print_info(
        f"{loaded.name} at {loaded.input_size[0]}x{loaded.input_size[1]}; {hidden} more with --all"
    )
    return 0


def _format_layer_cells(row: Mapping[str, object]) -> list[str]:
    number = f"stage{row['stage']}" if row["stage"] else ""
    number = f"--block {row['block']}" if row["block"] is not None else number
    grid = "x".join(map(str, row["grid"])) if isinstance(row["grid"], list) else ""
    extra = f"+{row['prefix_tokens']} tokens" if row["prefix_tokens"] else ""
    mark = "default" if row["default"] else ""
    return [str(row["layer"]), number, str(row["channels"]), grid, f"{row['layout']} {extra}", mark]
