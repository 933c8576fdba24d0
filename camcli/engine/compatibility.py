"""Which methods suit which layers of a model, and why others do not. Knows nothing of batches."""

from __future__ import annotations

from camcli.core.errors import MethodError
from camcli.engine.plan import separately
from camcli.engine.smoothing import NONE
from camcli.methods.registry import METHODS
from camcli.models.introspection import layers as survey
from camcli.models.model import Model


def alive(model: Model) -> frozenset[str]:
    """The layers that the predicted class of a probe depends on: see `survey.alive`."""
    return survey.find_live_layer_names(model.network, model.layers, model.input_size)


def at_layer(*, live: bool) -> tuple[str, ...]:
    """The methods that say something of a layer that the class depends on, or does not."""
    asked = {name: m for name, m in METHODS.items() if m.per_layer}
    return tuple(name for name, m in asked.items() if live or not m.class_through_layer)


def of_whole(model: Model) -> dict[str, str | None]:
    """The methods that read layers of their own, each with why it has no place in the model."""
    whole = [m for m in METHODS.values() if not m.per_layer]
    found = separately(model, whole, None, None, None, None, NONE)
    reasons = (
        (str(one).partition(" needs ")[2] or str(one)) if isinstance(one, MethodError) else None
        for one in found
    )
    return {m.name: reason for m, reason in zip(whole, reasons, strict=True)}
