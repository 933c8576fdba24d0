"""Batches of network inputs from images, preprocessed as TS-CAM does in training and testing."""

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
from camcli.io.bands import read_pixels
from camcli.io.images import ODD_IMAGE_ERRORS, describe_image_error
from camcli.io.transforms import preprocess_image
from camcli.training.data.training_samples import TrainingSample

Planes = tuple[Image.Image, ...]
TRAIN_RESIZE_RATIO = 256 / 224  # TS-CAM resizes to 256 and crops 224


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Inputs (B,C,H,W) and the samples that they show."""

    samples: tuple[TrainingSample, ...]
    inputs: Tensor


@dataclass(frozen=True, slots=True)
class Augmentation:
    """TS-CAM's augmentation: squash to 256/224 of the input size, crop and mirror at random.

    The random numbers depend only on seed, epoch and sample, so that a resumed run, or one with
    other threads, draws the same.
    """

    seed: int
    epoch: int


def preprocess_whole(image: Image.Image | Planes, transform: Transform) -> Float32Array:
    """Squash an image to the input size, as TS-CAM does in testing: (C,H,W)."""
    size = (image if isinstance(image, Image.Image) else image[0]).size
    return preprocess_image(image, View(*size, 0, 0, *size), transform)


def preprocess_random_crop(
    image: Image.Image | Planes, transform: Transform, generator: np.random.Generator
) -> Float32Array:
    """Crop an image at random and mirror it or not: (C,H,W)."""
    rows, cols = transform.size
    height, width = round(rows * TRAIN_RESIZE_RATIO), round(cols * TRAIN_RESIZE_RATIO)
    pixels = preprocess_whole(image, replace(transform, size=(height, width)))
    top, left = generator.integers(height - rows + 1), generator.integers(width - cols + 1)
    crop = pixels[:, top : top + rows, left : left + cols]
    return crop[..., ::-1] if generator.integers(2) else crop


def iter_batches(
    samples: Sequence[TrainingSample],
    transform: Transform,
    batch_size: int,
    workers: int,
    augmentation: Augmentation | None = None,
) -> Iterator[TrainingBatch | Failure]:
    """Yield samples in order, `batch_size` at a time, and a failure for each unreadable image."""
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
            yield TrainingBatch(tuple(sample for sample, _ in good), inputs)


def _load_sample(
    transform: Transform, augment: Augmentation | None, item: tuple[int, TrainingSample]
) -> tuple[TrainingSample, Float32Array] | Failure:
    number, sample = item
    try:
        planes = read_pixels(sample.path, transform.channel_count).planes
        if augment is None:
            return sample, preprocess_whole(planes, transform)
        generator = np.random.default_rng([augment.seed, augment.epoch, number])
        return sample, preprocess_random_crop(planes, transform, generator)
    except (ImageError, *ODD_IMAGE_ERRORS) as error:
        return Failure(sample.name, str(sample.path), describe_image_error(error))


def shuffle_samples(
    samples: Sequence[TrainingSample], augmentation: Augmentation
) -> list[TrainingSample]:
    """The samples in the order of an epoch."""
    order = np.random.default_rng([augmentation.seed, augmentation.epoch]).permutation(len(samples))
    return [samples[i] for i in order]
