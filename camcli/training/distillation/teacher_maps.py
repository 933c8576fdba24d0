"""Where the object of a photograph is, as slow teachers agree: the map that is to be learnt.

Maps of two networks go wrong in different ways; their sum finds more objects than either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camcli.core.maps import normalize_maps, resize_maps
from camcli.engine.explain import explain_batch
from camcli.engine.plan import plan_requests
from camcli.engine.request import Request
from camcli.methods.registry import find_method
from camcli.models.model import Model
from camcli.training.data.loader import preprocess_whole

TEACHER_MAP_GRID = (28, 28)
LARGE_INPUT_PIXELS = 320  # pixels at which the CNN is asked again: it then sees smaller parts
VIT_MAP_WEIGHT = 0.8  # of the transformer's map beside the CNN's


@dataclass(frozen=True, slots=True)
class Teacher:
    """A network, and what is asked of it."""

    model: Model
    requests: tuple[Request, ...]


def create_cam_teacher(model: Model) -> Teacher:
    """A teacher whose map is its CAM."""
    return Teacher(model, plan_requests(model, [find_method("cam")]))


def create_relevance_teacher(model: Model) -> Teacher:
    """A transformer whose map is its attention's relevance."""
    return Teacher(model, plan_requests(model, [find_method("chefer")]))


def compute_teacher_maps(
    cnn: Teacher, large: Teacher, vit: Teacher | None, images: Sequence[Image.Image]
) -> tuple[Tensor, Tensor]:
    """One map a photograph (B, 28, 28) in [0, 1], and the class (B,) that it is of.

    The class is the CNN's own; its CAM of the photograph, of the mirror image and, counted twice,
    of the photograph enlarged are summed, each min-maxed; then the transformer's relevance.
    """
    small = _preprocess_images(cnn.model, images)
    mirror = small.flip(3)
    with torch.no_grad():
        logits = cnn.model.network(small) + cnn.model.network(mirror)
    classes = logits.argmax(dim=1)
    cams = _compute_teacher_map(cnn, small, classes) + _compute_teacher_map(
        cnn, mirror, classes
    ).flip(2)
    summed = normalize_maps(
        cams + 2 * _compute_teacher_map(large, _preprocess_images(large.model, images), classes)
    )
    if vit is not None:
        summed = summed + VIT_MAP_WEIGHT * _compute_teacher_map(
            vit, _preprocess_images(vit.model, images), classes
        )
    return normalize_maps(summed), classes


def _preprocess_images(model: Model, pictures: Sequence[Image.Image]) -> Tensor:
    return torch.from_numpy(
        np.stack([preprocess_whole(picture, model.transform) for picture in pictures])
    )


def _compute_teacher_map(teacher: Teacher, inputs: Tensor, classes: Tensor) -> Tensor:
    """Min-maxed, as large as evidence is."""
    ((found,),) = explain_batch(teacher.model, inputs, teacher.requests, lambda _: classes[:, None])
    return normalize_maps(resize_maps(found.fused.values, TEACHER_MAP_GRID))
