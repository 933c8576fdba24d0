"""The card that camcli writes into files of weights that it trained, and reads back.

The card is JSON in the header of a safetensors file. It is untrusted when it is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors
from safetensors.torch import save
from torch import Tensor

from camcli.core.errors import CheckpointError
from camcli.core.types import Transform
from camcli.io.transforms import RESAMPLING_FILTERS
from camcli.models.introspection.probe import MAX_CHANNELS

CARD_METADATA_KEY = "camcli"
MAX_INPUT_SIDE = 2048  # in pixels

HeadKind = Literal["tscam", "gap"]
HEAD_KINDS: tuple[HeadKind, ...] = ("tscam", "gap")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A trained head: its kind, the network under it, its classes and its transform.

    `thresholds` has, by method, the best box threshold on the validation images.
    """

    head: HeadKind
    model: str
    classes: tuple[str, ...]
    transform: Transform
    thresholds: Mapping[str, float] = field(default_factory=dict)


def serialize_weights(state: Mapping[str, Tensor], card: ModelCard) -> bytes:
    """The bytes of a safetensors file with these weights and their card."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    return save(whole, {CARD_METADATA_KEY: json.dumps(asdict(card))})


def read_model_card(path: Path) -> ModelCard | None:
    """The card of a file, or None. Only the header is read.

    Raises CheckpointError for an invalid card.
    """
    if path.suffix.lower() != ".safetensors":
        return None
    try:
        with safetensors.safe_open(path, "pt") as opened:
            text = (opened.metadata() or {}).get(CARD_METADATA_KEY)
            rows = _read_first_dimensions(opened) if text is not None else set()
    except (OSError, safetensors.SafetensorError):
        return None  # reading the weights reports the error
    if text is None:
        return None
    try:
        card = _parse_card(json.loads(text))
    except (
        *(ValueError, TypeError, KeyError, AttributeError),
        *(RecursionError, OverflowError),
    ) as error:
        raise CheckpointError(f"{path}: its camcli model card is invalid ({error})") from None
    if len(card.classes) not in rows:  # checked before a network of that size is built
        raise CheckpointError(
            f"{path} names {len(card.classes)} classes, but no layer has that many outputs"
        )
    return card


def _read_first_dimensions(opened: Any) -> set[int]:
    """The first dimension of each tensor; one of them is the number of classes."""
    names = opened.keys()  # safe_open has no other way to list them
    shapes = (opened.get_slice(name).get_shape() for name in names)
    return {shape[0] for shape in shapes if shape}


def _parse_card(fields: Any) -> ModelCard:
    kind = next((k for k in HEAD_KINDS if k == fields["head"]), None)
    classes = tuple(fields["classes"]) if isinstance(fields["classes"], list) else ()
    thresholds = {str(k): float(v) for k, v in fields["thresholds"].items()}
    sound = (
        kind is not None,
        isinstance(fields["model"], str),
        bool(classes) and all(isinstance(name, str) for name in classes),
        all(0 <= value < 1 for value in thresholds.values()),
    )
    if kind is None or not all(sound):
        raise ValueError("head, model, classes or thresholds")
    return ModelCard(
        kind, fields["model"], classes, _parse_card_transform(fields["transform"]), thresholds
    )


def _parse_card_transform(fields: Any) -> Transform:
    rows, cols = (int(side) for side in fields["size"])
    mean, std = (tuple(float(v) for v in fields[key]) for key in ("mean", "std"))
    crop, resampling = float(fields["crop_pct"]), str(fields["interpolation"])
    sound = (
        all(0 < side <= MAX_INPUT_SIDE for side in (rows, cols)),
        0 < len(mean) == len(std) <= MAX_CHANNELS,
        all(map(math.isfinite, (*mean, *std))),
        all(value > 0 for value in std),
        0 < crop <= 1,
        resampling in RESAMPLING_FILTERS,
    )
    if not all(sound):
        raise ValueError("transform")
    return Transform((rows, cols), mean, std, resampling, crop)
