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

from camcli.attention import ClassRows, unfuse
from camcli.explain import explain
from camcli.maps import normalise, resize
from camcli.methods import get
from camcli.models import Model
from camcli.plan import Request, plan
from camcli.taps import record
from camcli.training.inputs import whole

GRID = (28, 28)
LARGER = 320  # pixels at which the CNN is asked again: it then sees smaller parts
SHARE = 0.8  # of the transformer's map beside the CNN's


@dataclass(frozen=True, slots=True)
class Teacher:
    """A network and what is asked of it: its CAM, or nothing where it is rolled out."""

    model: Model
    requests: tuple[Request, ...] = ()


def of_cam(model: Model) -> Teacher:
    """A teacher whose map is its CAM."""
    return Teacher(model, plan(model, [get("cam")]))


def evidence(
    cnn: Teacher, large: Teacher, vit: Teacher | None, pictures: Sequence[Image.Image]
) -> tuple[Tensor, Tensor]:
    """One map a photograph (B, 28, 28) in [0, 1], and the class (B,) that it is of.

    The class is the CNN's own; its CAM of the photograph, of the mirror image and, counted twice,
    of the photograph enlarged are summed, each min-maxed; then the transformer's rollout.
    """
    small = _inputs(cnn.model, pictures)
    mirror = small.flip(3)
    with torch.no_grad():
        logits = cnn.model.network(small) + cnn.model.network(mirror)
    classes = logits.argmax(dim=1)
    cams = _cam(cnn, small, classes) + _cam(cnn, mirror, classes).flip(2)
    summed = normalise(cams + 2 * _cam(large, _inputs(large.model, pictures), classes))
    if vit is not None:
        rolled = resize(rollout(vit.model, _inputs(vit.model, pictures), classes), GRID)
        summed = summed + SHARE * normalise(rolled)
    return normalise(summed), classes


def _inputs(model: Model, pictures: Sequence[Image.Image]) -> Tensor:
    return torch.from_numpy(np.stack([whole(picture, model.transform) for picture in pictures]))


def _cam(teacher: Teacher, inputs: Tensor, classes: Tensor) -> Tensor:
    ((found,),) = explain(teacher.model, inputs, teacher.requests, lambda _: classes[:, None])
    return normalise(resize(found.fused.values, GRID))


def rollout(model: Model, inputs: Tensor, classes: Tensor) -> Tensor:
    """CLS row of prod_l (I + mean_h relu(dy_c/dA_l * A_l)), without CLS: (B,3,H,W) -> (B,h,w).

    Source: arXiv 2103.15679, for self-attention.
    """
    blocks = [layer for layer in model.layers if layer.block is not None]
    names = [f"{layer.name}.attn.attn_drop" for layer in blocks]
    network = model.network
    modules = tuple(network.get_submodule(f"{layer.name}.attn") for layer in blocks)
    with unfuse(ClassRows(tuple(blocks), {}, modules)), record(network, taps=names) as recorded:
        logits = network(inputs)
        matrices = [recorded.taps[name] for name in names]
        gradients = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), matrices)
    row = torch.zeros(len(inputs), 1, matrices[0].shape[-1])
    row[:, :, 0] = 1
    for matrix, gradient in zip(reversed(matrices), reversed(gradients), strict=True):
        row = row + row @ (matrix.detach() * gradient).relu().mean(dim=1)
    prefix, grid = blocks[0].prefix, blocks[0].grid
    return row[:, 0, prefix:].reshape(-1, *grid)
