"""Which methods suit a model and its layers, and why others do not."""

from __future__ import annotations

from camcli.core.errors import MethodError
from camcli.engine.plan import PlanOptions, iter_method_plans
from camcli.methods.registry import METHODS
from camcli.models.introspection.default_layer import find_live_layer_names
from camcli.models.model import Model


def find_model_live_layers(model: Model) -> frozenset[str]:
    """The names of the layers on which the class score depends: see `find_live_layer_names`."""
    return find_live_layer_names(model.network, model.layers, model.input_size)


def list_layer_methods(*, is_live: bool) -> tuple[str, ...]:
    """The methods that can explain a layer; `is_live`: the class score depends on the layer."""
    per_layer = {name: m for name, m in METHODS.items() if m.per_layer}
    return tuple(name for name, m in per_layer.items() if is_live or not m.class_through_layer)


def list_whole_model_methods(model: Model) -> dict[str, str | None]:
    """The methods that choose layers themselves, each with a reason if the model lacks a part."""
    methods = [m for m in METHODS.values() if not m.per_layer]
    plans = iter_method_plans(model, methods, PlanOptions())
    return {m.name: _find_reason(plan) for m, plan in zip(methods, plans, strict=True)}


def _find_reason(plan: object) -> str | None:
    """Extract from the error's text which part the model lacks; None for a plan."""
    if not isinstance(plan, MethodError):
        return None
    return str(plan).partition(" needs ")[2] or str(plan)
