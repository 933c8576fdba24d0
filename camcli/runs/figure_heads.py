"""The heads above the columns of a figure, as a paper would print them."""

from __future__ import annotations

import inspect
import re
from functools import partial

from camcli.core.types import Layer
from camcli.methods.registry import Method
from camcli.runs.figure_columns import CellSpec

CLASS_HEADS = {"predicted": "predicted", "folder": "class of the folder"}


def format_head(spec: CellSpec, layer: Layer | None = None) -> str:
    """What a column or row shows, such as "Grad-CAM · stage 3".

    `layer` is given where the column stands for several layers.
    """
    if spec.image:
        return "image"
    words = [
        (spec.model or "").rpartition("/")[2],
        format_method_title(spec.method) if spec.method else "",
        format_layer(layer) if layer else _space_number(spec.layers or ""),
        spec.part or "",
        CLASS_HEADS.get(spec.target or "", ""),
        "fused" if spec.fused else "",
        spec.drawing or "",
    ]
    return " · ".join(filter(None, words))


def format_layer(layer: Layer) -> str:
    """The stage or block of a layer, else its name."""
    if layer.stage is not None:
        return f"stage {layer.stage}"
    return f"block {layer.block}" if layer.block is not None else layer.name


def _space_number(words: str) -> str:
    return re.sub(r"^(stage|block)(\d+)$", r"\1 \2", words)


def format_method_title(method: Method) -> str:
    """The name by which papers call a method: the start of its docstring, and its set options."""
    function = method.function.func if isinstance(method.function, partial) else method.function
    title, colon, _ = (inspect.getdoc(function) or "").partition("\n")[0].partition(":")
    name, *options = method.name.split(":")
    shown = [option.removeprefix("part=") for option in options if "=" in option]
    return " ".join([title if colon else name, *shown])
