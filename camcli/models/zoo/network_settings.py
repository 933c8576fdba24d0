"""What a network from user code says of itself: its images, and the names of its classes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from camcli.core.types import Transform
from camcli.models.zoo.library import DEFAULT_INPUT_SIZE, Size
from camcli.models.zoo.metadata import (
    CLASS_NAME_KEYS,
    MALFORMED_VALUE_ERRORS,
    find_class_names,
    find_transform_settings,
    read_settings_file,
)

PREPROCESSOR_FILE = "preprocessor_config.json"  # transformers writes it beside the weights
RESAMPLING_NAMES = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
MAX_INPUT_SIDE = 4096
WHITE = {"mean": (0.0,) * 3, "std": (1.0,) * 3}  # values in [0,1], not normalised


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """The transform's values that a network states, the source of mean and std, and class names."""

    transform: Mapping[str, Any] = field(default_factory=dict)
    size: Size = DEFAULT_INPUT_SIZE
    source: str = ""
    class_names: tuple[str, ...] | None = None


def find_network_settings(network: nn.Module) -> NetworkSettings:
    """What a network states in its attributes.

    timm's networks have a `pretrained_cfg`, those of transformers a `config` that may name their
    folder, and those of ultralytics `transforms` and `names`.
    """
    own, config = _to_table(network, "pretrained_cfg"), _to_table(network, "config")
    preprocessor = _read_preprocessor(config)
    found = (
        ("its pretrained_cfg", find_transform_settings(own)),
        (PREPROCESSOR_FILE, find_transform_settings(preprocessor)),
        ("its transforms", _find_normalize_step(network)),
        ("ultralytics", WHITE if type(network).__module__.startswith("ultralytics.") else {}),
    )
    source, values = next((f for f in found if {"mean", "std"} <= f[1].keys()), found[0])
    named = {key: getattr(network, key, None) for key in CLASS_NAME_KEYS}
    return NetworkSettings(
        values,
        _find_input_size(own, config, preprocessor),
        source if "mean" in values else "",
        next(filter(None, map(find_class_names, (own, config, named))), None),
    )


def describe_normalization(transform: Transform, source: str) -> str:
    """Say with which mean and std images are normalised, and where the values come from."""
    origin = f"from {source}" if source else "ImageNet's, because the network does not say"
    return (
        f"images are normalised with {format_normalization(transform)} "
        f"({origin}; or use --mean and --std)"
    )


def format_normalization(transform: Transform) -> str:
    """Mean and std as one text."""
    mean, std = (",".join(f"{v:.4g}" for v in values) for values in (transform.mean, transform.std))
    return f"mean {mean}, std {std}"


def _to_table(network: nn.Module, attribute: str) -> Mapping[str, Any]:
    """A table or the attributes of an object in an attribute of the network."""
    found = getattr(network, attribute, None)
    table = found if isinstance(found, Mapping) else getattr(found, "__dict__", {})
    return table if isinstance(table, Mapping) else {}


def _read_preprocessor(config: Mapping[str, Any]) -> dict[str, Any]:
    """transformers' settings of images, under timm's names; empty if the folder is not known."""
    folder = config.get("_name_or_path")
    if not isinstance(folder, str) or not folder:
        return {}
    table = read_settings_file(Path(folder) / PREPROCESSOR_FILE)
    if not isinstance(table, Mapping):
        return {}
    size, crop = (_find_sides(table.get(key)) for key in ("size", "crop_size"))
    is_cropped = bool(table.get("do_center_crop")) and size is not None and crop is not None
    return {
        "mean": table.get("image_mean"),
        "std": table.get("image_std"),
        "interpolation": _find_resampling(table.get("resample")),
        "input_size": crop if is_cropped else size,
        "crop_pct": crop[0] / size[0] if is_cropped and crop and size else table.get("crop_pct"),
        **({} if table.get("do_normalize", True) else WHITE),
    }


def _find_resampling(number: Any) -> str | None:
    return RESAMPLING_NAMES.get(number) if isinstance(number, int) else None


def _find_normalize_step(network: nn.Module) -> Mapping[str, Any]:
    """The mean and std of the step in torchvision's transforms that normalises."""
    steps = getattr(getattr(network, "transforms", None), "transforms", None)
    for step in steps if isinstance(steps, list | tuple) else ():
        with suppress(*MALFORMED_VALUE_ERRORS):
            values = {key: tuple(map(float, getattr(step, key))) for key in ("mean", "std")}
            return find_transform_settings(values)
    return {}


def _find_input_size(*tables: Mapping[str, Any]) -> Size:
    """The first input size among tables: (3,H,W) of timm, or `image_size` of transformers."""
    listed = (table.get(key) for table in tables for key in ("input_size", "image_size"))
    return next(filter(None, map(_find_sides, listed)), DEFAULT_INPUT_SIZE)


def _find_sides(value: Any) -> Size | None:
    """Height and width of one side, (H,W), (3,H,W), or a table of transformers; else None."""
    if isinstance(value, Mapping):
        edge = value.get("shortest_edge")
        value = (value.get("height", edge), value.get("width", edge))
    sides = tuple(value)[-2:] if isinstance(value, tuple | list) else (value, value)
    fits = len(sides) == 2 and all(type(s) is int and 0 < s <= MAX_INPUT_SIDE for s in sides)
    return (sides[0], sides[1]) if fits else None
