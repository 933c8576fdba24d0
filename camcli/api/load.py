"""Load a model, or wrap a network that is already in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from camcli.core.errors import LabelsError, UsageError
from camcli.core.types import Transform
from camcli.io.labels import create_labels, load_labels
from camcli.models.model import (
    Model,
    choose_device,
    load_model,
    override_transform,
    set_class_names,
    wrap_network,
)

if TYPE_CHECKING:
    from torch import nn

    from camcli.models.introspection.outputs import HeadName

LabelsLike = str | os.PathLike[str] | Sequence[str]


def load(
    name: str | os.PathLike[str] | None = None,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    labels: LabelsLike | None = None,
    size: int | tuple[int, int] | None = None,
    device: str = "auto",
    head: HeadName | None = None,
    logits: str | int | None = None,
) -> Model:
    """Load a model by name, file, folder or `package.module:function`.

    Without a name it is the built-in EfficientNet-Lite0, which needs no download. `checkpoint`
    has weights for a named architecture, `labels` the class names (a file, or a list), `size`
    the input size in pixels, one side or (H, W). `logits` is the key or index of the logits, for
    networks that return several tensors. `head` says what the outputs are: `softmax` or
    `sigmoid` of classes, `probabilities`, `regression` or `embedding`. Raises ModelError,
    CheckpointError, LabelsError or UsageError; each message says what to do.
    """
    check_head(head)
    model = load_model(
        None if name is None else os.fspath(name),
        None if checkpoint is None else Path(checkpoint),
        size=(size, size) if isinstance(size, int) else size,
        device=device,
        head=head,
        logits=None if logits is None else str(logits),
        class_count=_count_labels(labels),
    )
    return model if labels is None else _with_labels(model, labels)


def wrap(
    network: nn.Module,
    *,
    size: int | tuple[int, int] = 224,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str = "bilinear",
    labels: LabelsLike | None = None,
    name: str | None = None,
    device: str = "cpu",
    copy: bool = True,
    logits: str | int | None = None,
    head: HeadName | None = None,
) -> Model:
    """Wrap a classifier that is already in memory. The network itself is not changed.

    camcli works on a frozen copy. With `copy=False` it freezes and changes the network itself: that
    saves memory, and it is the way for networks that cannot be copied. `size` is the input size in
    pixels, one side or (H, W); `mean` and `std` are those of its training, of values in [0,1], one
    for each channel of the network or one for all. Without them they are ImageNet's, or their
    average where the network does not take three channels. `logits` is the key or index of the
    logits, if the network returns several tensors; otherwise the number of labels may tell them.
    `head` is that of `load`. Raises ModelError for a network that gives no (B,K) logits, UsageError
    for another number of values than channels.
    """
    check_head(head)
    transform = Transform(
        size=(size, size) if isinstance(size, int) else size, interpolation=interpolation
    )
    given = {"mean": mean, "std": std}
    overrides = {name: tuple(values) for name, values in given.items() if values is not None}
    model = wrap_network(
        name or type(network).__name__,
        network,
        transform,
        device=choose_device(device),
        copy=copy,
        logits=None if logits is None else str(logits),
        class_count=_count_labels(labels),
        head=head,
    )
    model = replace(model, transform=override_transform(model.transform, overrides))
    return model if labels is None else _with_labels(model, labels)


def _count_labels(labels: LabelsLike | None) -> int | None:
    """The number of names in a file or a list of class names."""
    if isinstance(labels, str | os.PathLike):
        return len(load_labels(Path(labels), None).names)
    return None if labels is None else len(labels)


def _with_labels(model: Model, labels: LabelsLike) -> Model:
    """The model with class names from a file, or from a list of one name per class."""
    count = len(model.labels.names)
    if isinstance(labels, str | os.PathLike):
        return set_class_names(model, load_labels(Path(labels), count))
    if len(labels) != count:
        raise LabelsError(f"labels is a list of {len(labels)}; the model has {count} classes")
    return set_class_names(model, create_labels(list(labels)))


def check_head(head: str | None) -> None:
    """Raise UsageError for a head that camcli does not know."""
    from camcli.models.introspection.outputs import HeadName

    if head is not None and head not in get_args(HeadName):
        raise UsageError(f"head={head!r}: choose from {', '.join(get_args(HeadName))}")
