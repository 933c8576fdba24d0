"""Photographs cut into views, and the CNN's features of each: computed once, kept in bf16."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camcli.core.concurrency import prefetch_map
from camcli.core.errors import ImageError, TrainingError
from camcli.core.geometry import Float32Array, View
from camcli.core.types import Failure, ImageSource, Transform
from camcli.io.images import load_image
from camcli.io.transforms import preprocess_image
from camcli.models.zoo.builtin import VIT_INPUT_SIDE, CnnFeatures
from camcli.training.task import AdvanceCallback

RANDOM_CROP_COUNT = 2  # random ones, besides the whole photograph and its mirror image
CROP_AREA_RANGE, CROP_ASPECT_RANGE = (0.25, 1.0), (0.7, 1.43)

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom; shares of the image


@dataclass(frozen=True, slots=True)
class ViewFeatures:
    """V views of each photograph: where they were cut, and features of stride 16 and 32.

    `middle` (n V, 14, 14, 112) and `deep` (n V, 7, 7, 320) in bf16; `rectangles` (n V, 4);
    `mirrored` (n V,).
    """

    image_names: tuple[str, ...]
    middle: Tensor
    deep: Tensor
    rectangles: Tensor
    is_mirrored: Tensor

    @property
    def views_per_image(self) -> int:
        """How many views a photograph has."""
        return len(self.middle) // len(self.image_names)


def sample_rectangle(generator: np.random.Generator) -> Rectangle:
    """A random rectangle of an image: a quarter of it or more, of no extreme shape."""
    for _ in range(20):
        area = generator.uniform(*CROP_AREA_RANGE)
        aspect = math.exp(
            generator.uniform(math.log(CROP_ASPECT_RANGE[0]), math.log(CROP_ASPECT_RANGE[1]))
        )
        width, height = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if width <= 1 and height <= 1:
            left, top = generator.uniform(0, 1 - width), generator.uniform(0, 1 - height)
            return left, top, left + width, top + height
    return 0.0, 0.0, 1.0, 1.0


def plan_views(image_index: int, seed: int) -> list[tuple[Rectangle, bool]]:
    """The views of a photograph: whole, mirrored, and random cuts, mirrored or not."""
    draw = np.random.default_rng([seed, image_index])
    whole: Rectangle = (0.0, 0.0, 1.0, 1.0)
    cuts = [(sample_rectangle(draw), bool(draw.integers(2))) for _ in range(RANDOM_CROP_COUNT)]
    return [(whole, False), (whole, True), *cuts]


def preprocess_view(
    image: Image.Image, transform: Transform, rectangle: Rectangle, mirror: bool
) -> Float32Array:
    """One view as the CNN's input (3,H,W)."""
    width, height = image.size
    left, top, right, bottom = rectangle
    view = View(width, height, left * width, top * height, right * width, bottom * height)
    pixels = preprocess_image(image, view, transform)
    return np.ascontiguousarray(pixels[..., ::-1]) if mirror else pixels


def compute_view_features(
    backbone: CnnFeatures,
    transform: Transform,
    sources: Sequence[ImageSource],
    seed: int,
    workers: int,
    advance: AdvanceCallback,
) -> tuple[ViewFeatures, list[Failure]]:
    """The features of every view. Raises TrainingError if no photograph can be read."""
    names: list[str] = []
    failed: list[Failure] = []
    parts: list[tuple[Tensor, Tensor]] = []
    plans: list[tuple[Rectangle, bool]] = []
    load = partial(_load_views, transform, seed)
    with ThreadPoolExecutor(workers) as pool, torch.no_grad():
        for loaded in prefetch_map(pool, load, enumerate(sources), 4 * workers):
            advance(1)
            if isinstance(loaded, Failure):
                failed.append(loaded)
                continue
            photograph, plan, pixels = loaded
            inputs = torch.from_numpy(pixels).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                middle, deep = backbone.forward_stages(inputs)
            parts.append((_pack_features(middle), _pack_features(deep)))
            names.append(photograph.name)
            plans += plan
    if not parts:
        raise TrainingError("none of the photographs can be read")
    every = [torch.cat(part) for part in zip(*parts, strict=True)]
    rectangles = torch.tensor([where for where, _ in plans])
    mirrored = torch.tensor([mirror for _, mirror in plans])
    return ViewFeatures(tuple(names), every[0], every[1], rectangles, mirrored), failed


def _pack_features(features: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,H,W,C) in bf16."""
    return features.permute(0, 2, 3, 1).bfloat16()


def _load_views(
    transform: Transform, seed: int, item: tuple[int, ImageSource]
) -> tuple[ImageSource, list[tuple[Rectangle, bool]], Float32Array] | Failure:
    number, source = item
    try:
        picture = load_image(source.path)
    except ImageError as error:
        return Failure(source.name, str(source.path), str(error))
    plan = plan_views(number, seed)
    assert transform.size == (VIT_INPUT_SIDE, VIT_INPUT_SIDE)
    return source, plan, np.stack([preprocess_view(picture, transform, *view) for view in plan])
