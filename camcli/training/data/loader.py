"""From photographs to a network's inputs: as TS-CAM trains, and as it tests. Knows no network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camcli.core import concurrency as stream
from camcli.core.errors import ImageError
from camcli.core.geometry import Floats, View
from camcli.core.types import Failed, Transform
from camcli.io import images, transforms
from camcli.training.data.samples import Photo

ENLARGED = 256 / 224  # TS-CAM squashes to 256 before it cuts 224


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs (B,3,H,W) and the photographs that they show."""

    photos: tuple[Photo, ...]
    inputs: Tensor


@dataclass(frozen=True, slots=True)
class Augment:
    """TS-CAM's: squash to 256/224 of the input, a random cut, a mirror image every other time.

    What is drawn goes by seed, epoch and photograph alone: threads and resumed runs draw the same.
    """

    seed: int
    epoch: int


def whole(picture: Image.Image, transform: Transform) -> Floats:
    """A photograph squashed to the input, as TS-CAM tests: (3,H,W)."""
    return transforms.preprocess(picture, View(*picture.size, 0, 0, *picture.size), transform)


def random_cut(picture: Image.Image, transform: Transform, draw: np.random.Generator) -> Floats:
    """A random cut of a photograph, mirrored or not: (3,H,W)."""
    rows, cols = transform.size
    high, wide = round(rows * ENLARGED), round(cols * ENLARGED)
    pixels = whole(picture, replace(transform, size=(high, wide)))
    top, left = draw.integers(high - rows + 1), draw.integers(wide - cols + 1)
    cut = pixels[:, top : top + rows, left : left + cols]
    return cut[..., ::-1] if draw.integers(2) else cut


def batches(
    photos: Sequence[Photo],
    transform: Transform,
    size: int,
    workers: int,
    augment: Augment | None = None,
) -> Iterator[Batch | Failed]:
    """Photographs in order, `size` at a time; what cannot be read is left out and told."""
    load = partial(_load, transform, augment)
    with ThreadPoolExecutor(workers) as pool:
        loaded = stream.ahead(pool, load, enumerate(photos), size + 2 * workers)
        yield from _grouped(loaded, size)


def _grouped(
    loaded: Iterable[tuple[Photo, Floats] | Failed], size: int
) -> Iterator[Batch | Failed]:
    source = iter(loaded)
    while group := list(islice(source, size)):
        yield from (item for item in group if isinstance(item, Failed))
        good = [item for item in group if not isinstance(item, Failed)]
        if good:
            inputs = torch.from_numpy(np.stack([pixels for _, pixels in good]))
            yield Batch(tuple(photo for photo, _ in good), inputs)


def _load(
    transform: Transform, augment: Augment | None, item: tuple[int, Photo]
) -> tuple[Photo, Floats] | Failed:
    number, photo = item
    try:
        picture = images.decode(photo.path)
    except ImageError as error:
        return Failed(photo.name, str(photo.path), str(error))
    if augment is None:
        return photo, whole(picture, transform)
    draw = np.random.default_rng([augment.seed, augment.epoch, number])
    return photo, random_cut(picture, transform, draw)


def shuffled(photos: Sequence[Photo], augment: Augment) -> list[Photo]:
    """The photographs in the order of an epoch."""
    order = np.random.default_rng([augment.seed, augment.epoch]).permutation(len(photos))
    return [photos[i] for i in order]
