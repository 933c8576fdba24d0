"""Where the object of each photograph is: the maps of slow teachers, added up.

Maps of two networks go wrong in different ways. Their sum finds more objects than either.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camcli.core.concurrency import prefetch_map
from camcli.core.maps import normalize_maps, resize_maps
from camcli.core.types import ImageSource
from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.engine.refine_options import RefineOptions
from camcli.engine.request import Request
from camcli.io.images import load_image
from camcli.methods.registry import find_method
from camcli.models.model import Model, load_model
from camcli.models.zoo.builtin_names import BUILTIN_CNN
from camcli.training.data.loader import preprocess_whole
from camcli.training.task import AdvanceCallback

TEACHER_MAP_GRID = (28, 28)
LARGE_INPUT_SIZE = (320, 320)  # the CNN sees smaller parts of a photograph at this size
VIT_MAP_WEIGHT = 0.8  # of the transformer's map; the CNN's maps together weigh 1
REFINEMENT = RefineOptions("affinity")  # refined maps find more objects: see the weights' card
IMAGES_AT_ONCE, IMAGES_AHEAD = 20, 40


@dataclass(frozen=True, slots=True)
class Teacher:
    """A network, and its one request to explain."""

    model: Model
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Teachers:
    """The built-in CNN at its own size and at a larger one, and perhaps a transformer."""

    cnn: Teacher
    large_cnn: Teacher
    vit: Teacher | None = None


def load_teachers(vit: Model | None = None) -> Teachers:
    """Refined maps: CAM of the built-in CNN at two sizes, and a transformer's relevance."""
    cnn = load_model(BUILTIN_CNN, device="cpu")
    large_cnn = load_model(BUILTIN_CNN, size=LARGE_INPUT_SIZE, device="cpu")
    return Teachers(
        cnn=_create_teacher(cnn, "cam"),
        large_cnn=_create_teacher(large_cnn, "cam"),
        vit=_create_teacher(vit, "chefer") if vit else None,
    )


def _create_teacher(model: Model, method: str) -> Teacher:
    return Teacher(model, plan_requests(model, [find_method(method)], refine=REFINEMENT))


def compute_all_teacher_maps(
    teachers: Teachers, sources: Sequence[ImageSource], *, workers: int, advance: AdvanceCallback
) -> tuple[Tensor, Tensor]:
    """The maps (n, 28, 28) and classes (n,) of photographs, in their order."""
    maps, classes = [], []
    with ThreadPoolExecutor(workers) as pool:
        images = prefetch_map(pool, lambda item: load_image(item.path), sources, IMAGES_AHEAD)
        while group := list(islice(images, IMAGES_AT_ONCE)):
            group_maps, group_classes = compute_teacher_maps(teachers, group)
            maps.append(group_maps)
            classes.append(group_classes)
            advance(len(group))
    return torch.cat(maps), torch.cat(classes)


def compute_teacher_maps(
    teachers: Teachers, images: Sequence[Image.Image]
) -> tuple[Tensor, Tensor]:
    """One map for each photograph (B, 28, 28) in [0, 1], and its class (B,), the CNN's answer.

    The CNN's CAMs of the photograph, of its mirror image and, counted twice, of the photograph
    enlarged are added up, each min-maxed; then the transformer's relevance.
    """
    network = teachers.cnn.model.network
    inputs = _preprocess_images(teachers.cnn.model, images)
    mirrored = inputs.flip(3)
    with torch.no_grad():
        classes = (network(inputs) + network(mirrored)).argmax(dim=1)
    cams = _compute_map(teachers.cnn, inputs, classes)
    cams = cams + _compute_map(teachers.cnn, mirrored, classes).flip(2)
    large_inputs = _preprocess_images(teachers.large_cnn.model, images)
    maps = normalize_maps(cams + 2 * _compute_map(teachers.large_cnn, large_inputs, classes))
    if teachers.vit is not None:
        vit_inputs = _preprocess_images(teachers.vit.model, images)
        maps = maps + VIT_MAP_WEIGHT * _compute_map(teachers.vit, vit_inputs, classes)
    return normalize_maps(maps), classes


def _preprocess_images(model: Model, images: Sequence[Image.Image]) -> Tensor:
    return torch.from_numpy(
        np.stack([preprocess_whole(image, model.transform) for image in images])
    )


def _compute_map(teacher: Teacher, inputs: Tensor, classes: Tensor) -> Tensor:
    """One teacher's maps, min-maxed: (B, 28, 28)."""
    ((found,),) = explain_batch(teacher.model, inputs, teacher.requests, lambda _: classes[:, None])
    return normalize_maps(resize_maps(found.fused.values, TEACHER_MAP_GRID))
