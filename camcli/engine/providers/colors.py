"""The colours that the network knows: what its normalisation makes of black and white."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camcli.engine.providers.base import ModelPart, Provider
from camcli.engine.providers.provider_registry import register_provider

if TYPE_CHECKING:
    from torch import Tensor

    from camcli.core.types import Layer, Transform
    from camcli.engine.pass_state import PassState
    from camcli.engine.request import Request
    from camcli.models.model import Model


def _find_transform(model: Model) -> Transform:
    return model.transform


TRANSFORM = ModelPart(_find_transform, lambda model: f"the normalisation of {model.name}")


def compute_color_range(transform: Transform) -> Tensor:
    """Black and white as inputs of this transform hold them: (2,C,1,1).

    They are those of an image of bytes. Bands of floating-point values may exceed them.
    """
    import torch

    mean, std = (torch.tensor(values) for values in (transform.mean, transform.std))
    return torch.stack([-mean / std, (1 - mean) / std])[:, :, None, None]


def provide_color_range(state: PassState, request: Request, _layer: Layer) -> Tensor:
    """Black and white as the network's inputs hold them: (2,C,1,1)."""
    return compute_color_range(request.get_part(TRANSFORM)).to(state.inputs)


register_provider(Provider("color_range", provide_color_range, model_parts=(TRANSFORM,)))
