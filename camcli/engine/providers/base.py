"""The provider record: all that camcli knows about one tensor that methods may ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from camcli.core.types import Layer
    from camcli.engine.pass_state import PassState
    from camcli.engine.request import Request
    from camcli.models.introspection.hooks import TensorFunction
    from camcli.models.model import Model

Found_co = TypeVar("Found_co", covariant=True)
ProgressCallback = Callable[[int, int], None]
InputCost = Literal["forward", "attention", "gradient", "N forwards", "N gradients"]


@dataclass(frozen=True, slots=True, eq=False)
class ModelPart(Generic[Found_co]):
    """A part of a model that a provider reads, such as the classifier.

    `find` returns None if the model lacks the part. `describe_missing` then completes the sentence
    "METHOD needs ...". `select_blocks`, if there is one, restricts the part to the blocks of
    chosen layers; it raises MethodError for layers that it cannot use.
    """

    find: Callable[[Model], Found_co | None]
    describe_missing: Callable[[Model], str]
    select_blocks: Callable[[Any, Sequence[Layer]], Any] | None = None


@dataclass(frozen=True, slots=True)
class PassNeeds:
    """The needs of providers: from the network, and from its shared forward pass.

    Layers are module names. `graph_layers` are recorded with their autograd graph, `copied_layers`
    without it; of the layers in `reducers` only the reduced output is kept. `fused_modules` must
    compute attention without a fused kernel. `other_hooked_modules` are hooked in further passes.
    `batch_norms` means that batch norms must stay as they are, `input_graph` that the graph must
    reach the inputs, and `double_backward` that the graph must be differentiable twice.
    """

    graph_layers: tuple[str, ...] = ()
    copied_layers: tuple[str, ...] = ()
    reducers: Mapping[str, TensorFunction] = field(default_factory=dict)
    fused_modules: tuple[Any, ...] = ()
    other_hooked_modules: tuple[str, ...] = ()
    batch_norms: bool = False
    input_graph: bool = False
    double_backward: bool = False

    def __or__(self, other: PassNeeds) -> PassNeeds:
        """Combine both needs, each layer once."""
        return PassNeeds(
            graph_layers=_join(self.graph_layers, other.graph_layers),
            copied_layers=_join(self.copied_layers, other.copied_layers),
            reducers={**self.reducers, **other.reducers},
            fused_modules=_join(self.fused_modules, other.fused_modules),
            other_hooked_modules=_join(self.other_hooked_modules, other.other_hooked_modules),
            batch_norms=self.batch_norms or other.batch_norms,
            input_graph=self.input_graph or other.input_graph,
            double_backward=self.double_backward or other.double_backward,
        )

    @property
    def hooked_modules(self) -> set[str]:
        """The modules whose output is read or changed; `name[1]` counts as `name`."""
        recorded = (*self.graph_layers, *self.copied_layers, *self.reducers)
        return {name.partition("[")[0] for name in (*recorded, *self.other_hooked_modules)}


def _join(first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys((*first, *second)))


@dataclass(frozen=True, slots=True, eq=False)
class Provider:
    """One tensor that a method may ask for: what it costs, what it needs, how it is computed.

    `class_specific` and `layer_specific` tell whether the tensor depends on the class, and whether
    there is one for each layer. `reads_cls` marks tensors that follow attention to the CLS token,
    which says little if the classifier reads the patches. `model_parts` are found before any pass,
    `list_needs` is asked before the shared pass, `compute` runs after it. `list_source_layers`
    names the layers that the provider chooses by itself. `collect_component_maps` returns maps
    (B,h,w) that are worth showing beside the method's own.
    """

    name: str
    compute: Callable[[PassState, Request, Layer], Any]
    cost: InputCost = "forward"
    class_specific: bool = False
    layer_specific: bool = False
    reads_cls: bool = False
    model_parts: tuple[ModelPart[Any], ...] = ()
    list_needs: Callable[[Request], PassNeeds] = lambda _request: PassNeeds()
    list_source_layers: Callable[[Request], tuple[Layer, ...]] = lambda _request: ()
    collect_component_maps: Callable[[PassState, Request], Mapping[str, Tensor]] = (
        lambda _state, _request: {}
    )
