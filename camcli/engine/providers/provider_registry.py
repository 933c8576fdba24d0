"""The registry of providers: every tensor that a method may ask for, by name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from camcli.core.types import Layer
from camcli.engine.providers.base import ModelPart, PassNeeds, Provider

if TYPE_CHECKING:
    from camcli.engine.pass_state import PassState
    from camcli.engine.request import Request
    from camcli.methods.registry import Method

PROVIDERS: dict[str, Provider] = {}
NO_LAYER = Layer("", "NCHW", 3, (0, 0))


def register_provider(provider: Provider) -> Provider:
    """Add a provider to the registry. Raises ValueError if its name is taken."""
    if provider.name in PROVIDERS:
        raise ValueError(f"two providers have the name {provider.name!r}; rename one of them")
    PROVIDERS[provider.name] = provider
    return provider


def list_providers(method: Method) -> tuple[Provider, ...]:
    """The providers of all that a method asks for."""
    return tuple(PROVIDERS[name] for name in method.input_names)


def list_model_parts(method: Method) -> tuple[ModelPart[Any], ...]:
    """The parts that a model must have for a method, each once."""
    parts = (part for provider in list_providers(method) for part in provider.model_parts)
    return tuple(dict.fromkeys(parts))


def can_choose_blocks(method: Method) -> bool:
    """Whether the method joins several blocks by itself, so that the user may choose which."""
    parts = list_model_parts(method)
    return not method.per_layer and any(part.select_blocks is not None for part in parts)


def takes_layers(method: Method) -> bool:
    """Whether `--layers` and `--block` have an effect on the method."""
    return method.per_layer or can_choose_blocks(method)


def gather_needs(requests: Iterable[Request]) -> PassNeeds:
    """All that some requests need from the network and its shared pass."""
    return reduce(or_, map(_gather_request_needs, requests), PassNeeds())


def _gather_request_needs(request: Request) -> PassNeeds:
    """The needs of the providers of a method, and of the refinement of its maps."""
    own = [provider.list_needs(request) for provider in list_providers(request.method)]
    refining = [request.refiner.needs] if request.refiner else []
    return reduce(or_, own + refining, PassNeeds())


def provide_input(
    provider: Provider, state: PassState, request: Request, layer: Layer | None
) -> Any:
    """The tensor for a method, computed once for all methods that ask for it."""
    where = layer if layer and provider.layer_specific else NO_LAYER
    # Requests with different blocks get different tensors from one provider.
    own_layers = () if provider.layer_specific else provider.list_source_layers(request)
    key = (provider.name, ",".join([where.name, *(own.name for own in own_layers)]))
    if key not in state.cache:
        state.cache[key] = provider.compute(state, request, where)
    return state.cache[key]
