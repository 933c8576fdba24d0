"""Views of the photographs, and the CNN's features of each: computed once, kept in bf16."""

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
from camcli.models.zoo.builtin_networks import VIT_INPUT_SIDE, CnnFeatures
from camcli.training.task import AdvanceCallback

RANDOM_CROP_COUNT = 6  # besides the whole photograph and its mirror image
CROP_AREA_RANGE, CROP_ASPECT_RANGE = (0.25, 1.0), (0.7, 1.43)

Rectangle = tuple[float, float, float, float]  # left, top, right, bottom; shares of the image
WHOLE_IMAGE: Rectangle = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class ViewFeatures:
    """V views of each photograph: their rectangles, and their features of stride 16 and 32.

    `middle` (n V, 14, 14, 112) and `deep` (n V, 7, 7, 320) in bf16; `rectangles` (n V, 4);
    `is_mirrored` (n V,).
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


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """One view of a photograph."""

    rectangle: Rectangle
    mirrored: bool


@dataclass(frozen=True, slots=True)
class _LoadedViews:
    """A photograph's views as inputs (V,3,H,W) of the CNN."""

    image_name: str
    plans: tuple[ViewPlan, ...]
    inputs: Float32Array


def sample_rectangle(generator: np.random.Generator) -> Rectangle:
    """A random rectangle with a quarter or more of an image's area, neither long nor narrow."""
    for _ in range(20):
        area = generator.uniform(*CROP_AREA_RANGE)
        aspect = math.exp(
            generator.uniform(math.log(CROP_ASPECT_RANGE[0]), math.log(CROP_ASPECT_RANGE[1]))
        )
        width, height = math.sqrt(area * aspect), math.sqrt(area / aspect)
        if width <= 1 and height <= 1:
            left, top = generator.uniform(0, 1 - width), generator.uniform(0, 1 - height)
            return left, top, left + width, top + height
    return WHOLE_IMAGE


def plan_views(image_index: int, seed: int) -> tuple[ViewPlan, ...]:
    """The views of a photograph: whole, mirrored, and random crops, some of them mirrored."""
    generator = np.random.default_rng([seed, image_index])
    crops = (
        ViewPlan(sample_rectangle(generator), bool(generator.integers(2)))
        for _ in range(RANDOM_CROP_COUNT)
    )
    return (ViewPlan(WHOLE_IMAGE, mirrored=False), ViewPlan(WHOLE_IMAGE, mirrored=True), *crops)


def preprocess_view(image: Image.Image, transform: Transform, plan: ViewPlan) -> Float32Array:
    """One view as the CNN's input (3,H,W)."""
    width, height = image.size
    left, top, right, bottom = plan.rectangle
    view = View(width, height, left * width, top * height, right * width, bottom * height)
    pixels = preprocess_image(image, view, transform)
    return np.ascontiguousarray(pixels[..., ::-1]) if plan.mirrored else pixels


def compute_view_features(
    backbone: CnnFeatures,
    transform: Transform,
    sources: Sequence[ImageSource],
    *,
    seed: int,
    workers: int,
    advance: AdvanceCallback,
) -> tuple[ViewFeatures, list[Failure]]:
    """The features of every view, and the photographs that cannot be read.

    Raises TrainingError if none can be read.
    """
    names: list[str] = []
    failed: list[Failure] = []
    features: list[tuple[Tensor, Tensor]] = []
    plans: list[ViewPlan] = []
    load = partial(_load_views, transform, seed)
    with ThreadPoolExecutor(workers) as pool:
        for loaded in prefetch_map(pool, load, enumerate(sources), 4 * workers):
            advance(1)
            if isinstance(loaded, Failure):
                failed.append(loaded)
                continue
            features.append(_compute_features(backbone, loaded.inputs))
            names.append(loaded.image_name)
            plans += loaded.plans
    if not names:
        raise TrainingError("none of the photographs can be read")
    views = ViewFeatures(
        image_names=tuple(names),
        middle=torch.cat([middle for middle, _ in features]),
        deep=torch.cat([deep for _, deep in features]),
        rectangles=torch.tensor([plan.rectangle for plan in plans]),
        is_mirrored=torch.tensor([plan.mirrored for plan in plans]),
    )
    return views, failed


@torch.no_grad()
def _compute_features(backbone: CnnFeatures, pixels: Float32Array) -> tuple[Tensor, Tensor]:
    inputs = torch.from_numpy(pixels).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        middle, deep = backbone.forward_stages(inputs)
    return _pack_features(middle), _pack_features(deep)


def _pack_features(features: Tensor) -> Tensor:
    """(B,C,H,W) -> (B,H,W,C) in bf16."""
    return features.permute(0, 2, 3, 1).bfloat16()


def _load_views(
    transform: Transform, seed: int, item: tuple[int, ImageSource]
) -> _LoadedViews | Failure:
    index, source = item
    assert transform.size == (VIT_INPUT_SIDE, VIT_INPUT_SIDE)
    try:
        image = load_image(source.path)
    except ImageError as error:
        return Failure(source.name, str(source.path), str(error))
    plans = plan_views(index, seed)
    inputs = np.stack([preprocess_view(image, transform, plan) for plan in plans])
    return _LoadedViews(source.name, plans, inputs)
