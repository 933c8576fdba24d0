"""A head alone: each photograph goes through the frozen network once, the rest is regression."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from camcli.core.errors import TrainingError
from camcli.core.types import Failed
from camcli.models.introspection.heads import ConvHead, PooledHead
from camcli.training import logistic_regression as linear
from camcli.training import validation as judge
from camcli.training.config import DECAYS
from camcli.training.data import loader as inputs
from camcli.training.data.samples import Photo
from camcli.training.task import Advance, Epoch, Judged, Lesson


@dataclass(frozen=True, slots=True)
class Seen:
    """What a head sees of each photograph (n, F), what it should say (n, K), and what failed."""

    features: Tensor
    wanted: Tensor
    failed: tuple[Failed, ...]


def head_of(network: nn.Module) -> ConvHead | PooledHead:
    """The head that was put on."""
    return next(m for m in network.modules() if isinstance(m, ConvHead | PooledHead))


def fits(lesson: Lesson, advance: Advance) -> Iterator[Epoch]:
    """A fit for each weight decay; the network has the head of the best so far on validation.

    Training sees each photograph and its mirror image. Raises TrainingError where nothing could be
    read.
    """
    began = time.monotonic()
    train = _seen(lesson, lesson.photos.train, advance, mirrored=True)
    held = _seen(lesson, lesson.photos.validation, advance, mirrored=False)
    for part, seen in (("photographs", train), ("validation photographs", held)):
        if not len(seen.features):
            raise TrainingError(f"none of the {part} can be read: {_first(seen.failed)}")
    told = {photo.label for photo in lesson.photos.train} - {None}
    unseen = told - set(train.wanted.argmax(dim=1).tolist())
    if unseen:
        raise TrainingError(lesson.photos.unseen(unseen))
    given, best, kept = lesson.recipe.decay, Judged(), None
    for number, decay in enumerate(DECAYS if given is None else (given,), start=1):
        fitted = linear.fit(train.features, train.wanted, decay)
        if not torch.isfinite(fitted.weight).all():
            raise TrainingError("the head's weights became NaN; are the network's own finite?")
        _put(fitted, head_of(lesson.network))
        judged = judge.boxes(lesson, judge.marks(fitted.logits(held.features), held.wanted))
        if kept is None or judged.order > best.order:
            best, kept = judged, fitted
        _put(kept, head_of(lesson.network))
        failed = (*train.failed, *held.failed) if number == 1 else ()
        took = time.monotonic() - began
        yield Epoch(number, fitted.losses[-1], judged, took, failed, decay, fitted.losses)
        began = time.monotonic()


def _first(failed: Sequence[Failed]) -> str:
    return f"{failed[0].name}: {failed[0].reason}" if failed else "there are none"


def _put(fitted: linear.Fitted, head: ConvHead | PooledHead) -> None:
    own = head.conv if isinstance(head, ConvHead) else head
    assert own.bias is not None
    with torch.no_grad():
        own.weight.copy_(fitted.weight.reshape(own.weight.shape))
        own.bias.copy_(fitted.bias)


@torch.no_grad()
def _seen(lesson: Lesson, photos: Sequence[Photo], advance: Advance, *, mirrored: bool) -> Seen:
    features: list[Tensor] = []
    wanted: list[Tensor] = []
    failed: list[Failed] = []
    recipe, network = lesson.recipe, lesson.network.eval()
    with _without_head(network) as read:
        for batch in inputs.batches(photos, lesson.transform, recipe.batch_size, recipe.workers):
            if isinstance(batch, Failed):
                failed.append(batch)
                advance(1)
                continue
            for way in (batch.inputs, batch.inputs.flip(3))[: 1 + mirrored]:
                with autocast(lesson):
                    yielded = network(way.to(lesson.device))
                features.append(read(yielded.float()).cpu())
                wanted.append(lesson.answers(replace(batch, inputs=way)))
            advance(len(batch.photos))
    classes = len(lesson.photos.labels.names)
    none = torch.zeros(0, 1), torch.zeros(0, classes)
    return Seen(
        torch.cat(features) if features else none[0],
        torch.cat(wanted) if wanted else none[1],
        tuple(failed),
    )


def autocast(lesson: Lesson) -> Any:
    """The precision that the recipe asks for."""
    return torch.autocast(
        lesson.device.type, torch.bfloat16, enabled=lesson.recipe.precision == "bf16"
    )


@contextmanager
def _without_head(network: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
    """The network yields what its head would read; given is how the head sums that up."""
    head = head_of(network)
    name = next(name for name, module in network.named_modules() if module is head)
    network.set_submodule(name, nn.Identity())
    try:
        if isinstance(head, ConvHead):
            yield partial(linear.window_means, prefix=head.prefix, grid=head.grid)
        else:
            yield linear.pooled
    finally:
        network.set_submodule(name, head)
