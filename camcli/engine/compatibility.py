"""Which methods suit which layers of a model, and why others do not. Knows nothing of batches."""

from __future__ import annotations

from camcli.core.errors import MethodError
from camcli.engine.plan import iter_method_plans
from camcli.engine.smoothing import NO_SMOOTHING
from camcli.methods.registry import METHODS
from camcli.models.introspection.default_layer import find_live_layer_names
from camcli.models.model import Model


def find_model_live_layers(model: Model) -> frozenset[str]:
    """The layers that the predicted class of a probe depends on: see `survey.alive`."""
    return find_live_layer_names(model.network, model.layers, model.input_size)


def list_layer_methods(*, is_live: bool) -> tuple[str, ...]:
    """The methods that say something of a layer that the class depends on, or does not."""
    asked = {name: m for name, m in METHODS.items() if m.per_layer}
    return tuple(name for name, m in asked.items() if is_live or not m.class_through_layer)


def list_whole_model_methods(model: Model) -> dict[str, str | None]:
    """The methods that read layers of their own, each with why it has no place in the model."""
    whole = [m for m in METHODS.values() if not m.per_layer]
    found = iter_method_plans(model, whole, None, None, None, None, NO_SMOOTHING)
    reasons = (
        (str(one).partition(" needs ")[2] or str(one)) if isinstance(one, MethodError) else None
        for one in found
    )
    return {m.name: reason for m, reason in zip(whole, reasons, strict=True)}
