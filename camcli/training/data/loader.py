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

from camcli.core.concurrency import prefetch_map
from camcli.core.errors import ImageError
from camcli.core.geometry import Float32Array, View
from camcli.core.types import Failure, Transform
from camcli.io.images import load_image
from camcli.io.transforms import preprocess_image
from camcli.training.data.samples import TrainingSample

TRAIN_RESIZE_RATIO = 256 / 224  # TS-CAM squashes to 256 before it cuts 224


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Inputs (B,3,H,W) and the photographs that they show."""

    samples: tuple[TrainingSample, ...]
    inputs: Tensor


@dataclass(frozen=True, slots=True)
class Augmentation:
    """TS-CAM's: squash to 256/224 of the input, a random cut, a mirror image every other time.

    What is drawn goes by seed, epoch and photograph alone: threads and resumed runs draw the same.
    """

    seed: int
    epoch: int


def preprocess_whole(image: Image.Image, transform: Transform) -> Float32Array:
    """A photograph squashed to the input, as TS-CAM tests: (3,H,W)."""
    return preprocess_image(image, View(*image.size, 0, 0, *image.size), transform)


def preprocess_random_crop(
    image: Image.Image, transform: Transform, generator: np.random.Generator
) -> Float32Array:
    """A random cut of a photograph, mirrored or not: (3,H,W)."""
    rows, cols = transform.size
    high, wide = round(rows * TRAIN_RESIZE_RATIO), round(cols * TRAIN_RESIZE_RATIO)
    pixels = preprocess_whole(image, replace(transform, size=(high, wide)))
    top, left = generator.integers(high - rows + 1), generator.integers(wide - cols + 1)
    cut = pixels[:, top : top + rows, left : left + cols]
    return cut[..., ::-1] if generator.integers(2) else cut


def iter_batches(
    samples: Sequence[TrainingSample],
    transform: Transform,
    batch_size: int,
    workers: int,
    augmentation: Augmentation | None = None,
) -> Iterator[TrainingBatch | Failure]:
    """Photographs in order, `size` at a time; what cannot be read is left out and told."""
    load = partial(_load_sample, transform, augmentation)
    with ThreadPoolExecutor(workers) as pool:
        loaded = prefetch_map(pool, load, enumerate(samples), batch_size + 2 * workers)
        yield from _group_batches(loaded, batch_size)


def _group_batches(
    loaded: Iterable[tuple[TrainingSample, Float32Array] | Failure], size: int
) -> Iterator[TrainingBatch | Failure]:
    source = iter(loaded)
    while group := list(islice(source, size)):
        yield from (item for item in group if isinstance(item, Failure))
        good = [item for item in group if not isinstance(item, Failure)]
        if good:
            inputs = torch.from_numpy(np.stack([pixels for _, pixels in good]))
            yield TrainingBatch(tuple(photo for photo, _ in good), inputs)


def _load_sample(
    transform: Transform, augment: Augmentation | None, item: tuple[int, TrainingSample]
) -> tuple[TrainingSample, Float32Array] | Failure:
    number, photo = item
    try:
        picture = load_image(photo.path)
    except ImageError as error:
        return Failure(photo.name, str(photo.path), str(error))
    if augment is None:
        return photo, preprocess_whole(picture, transform)
    draw = np.random.default_rng([augment.seed, augment.epoch, number])
    return photo, preprocess_random_crop(picture, transform, draw)


def shuffle_samples(
    samples: Sequence[TrainingSample], augmentation: Augmentation
) -> list[TrainingSample]:
    """The photographs in the order of an epoch."""
    order = np.random.default_rng([augmentation.seed, augmentation.epoch]).permutation(len(samples))
    return [samples[i] for i in order]
