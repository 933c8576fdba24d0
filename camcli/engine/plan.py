"""Requests from methods: which layers and which parts of a model each method reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from camcli.core.errors import LayerError, MethodError
from camcli.core.types import Layer
from camcli.engine.chosen_layers import (
    check_layer_sizes,
    check_view_sizes,
    find_chosen_layers,
)
from camcli.engine.fusion import FUSIONS
from camcli.engine.map_functions import choose_map_function
from camcli.engine.providers.base import ModelPart
from camcli.engine.providers.provider_registry import (
    can_choose_blocks,
    list_model_parts,
    takes_layers,
)
from camcli.engine.refine_options import NO_REFINEMENT, RefineOptions
from camcli.engine.refinement import Refiner, choose_refine_options, create_refiner
from camcli.engine.request import Request
from camcli.engine.smoothing import NO_SMOOTHING, Smoothing
from camcli.methods.registry import (
    DEFAULT_CLASS_BLIND_METHODS,
    DEFAULT_METHODS,
    METHODS,
    Method,
    find_method,
)
from camcli.models.introspection.gradient_mode import allow_gradients
from camcli.models.introspection.selectors import (
    EACH_PREFIX,
    BlockFinder,
    find_block_layer,
    find_block_output,
)
from camcli.models.model import Model


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """The choices of the user besides methods, which are the same for all methods.

    `layer_spec` chooses layers, as `parse_layer_spec` reads it. `fusion` replaces each method's
    own; "none" makes a request of every layer, and so does `each:` before the layers. `options`
    holds the options of methods, by method name.
    """

    layer_spec: str | None = None
    fusion: str | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    smoothing: Smoothing = NO_SMOOTHING
    refine: RefineOptions = NO_REFINEMENT

    @property
    def names_layers(self) -> bool:
        """Whether the user chose layers."""
        return self.layer_spec is not None

    @property
    def separates_layers(self) -> bool:
        """Whether each layer gets a request of its own."""
        return self.fusion == "none" or (self.layer_spec or "").startswith(EACH_PREFIX)


@dataclass(frozen=True, slots=True)
class SuitablePlan:
    """The requests of all methods that suit a model; `left_out` has a reason for each other one."""

    requests: tuple[Request, ...]
    left_out: Mapping[str, str]


@allow_gradients()
def plan_requests(
    model: Model,
    methods: Sequence[Method],
    layer_spec: str | None = None,
    fusion: str | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    smoothing: Smoothing = NO_SMOOTHING,
    refine: RefineOptions = NO_REFINEMENT,
) -> tuple[Request, ...]:
    """The requests of some methods; the other arguments are the fields of `PlanOptions`.

    Without methods it is the first of `DEFAULT_METHODS` that suits the model; if the user chose
    layers, the first of these that explains chosen layers. Raises LayerError or MethodError if the
    model lacks what a method needs.
    """
    plan_options = PlanOptions(layer_spec, fusion, options or {}, smoothing, refine)
    return plan_layer_specs(model, methods, [layer_spec], plan_options)


@allow_gradients()
def plan_layer_specs(
    model: Model,
    methods: Sequence[Method],
    layer_specs: Sequence[str | None],
    plan_options: PlanOptions,
) -> tuple[Request, ...]:
    """The requests for several specifications of layers, each only once.

    Without methods it is the default one. Raises MethodError if one method does not suit the model.
    """
    check_view_sizes(model, plan_options.smoothing)
    if not methods:
        return _plan_default_method(model, layer_specs, plan_options)
    _check_layers_matter(methods, layer_specs)
    return _Planner(model, plan_options).plan_specs(methods, layer_specs)


@allow_gradients()
def plan_suitable_methods(
    model: Model,
    methods: Sequence[Method],
    layer_specs: Sequence[str | None],
    plan_options: PlanOptions,
) -> SuitablePlan:
    """As `plan_layer_specs`, but leave out methods that do not suit the model.

    Raises the first MethodError if no method is left.
    """
    if not methods:
        return SuitablePlan(_plan_default_method(model, layer_specs, plan_options), {})
    plans = list(iter_method_plans(model, methods, plan_options, layer_specs))
    suitable = [plan for plan in plans if not isinstance(plan, MethodError)]
    if not suitable:
        raise next(plan for plan in plans if isinstance(plan, MethodError))
    reasons = {
        method.name: str(plan)
        for method, plan in zip(methods, plans, strict=True)
        if isinstance(plan, MethodError)
    }
    return SuitablePlan(tuple(request for plan in suitable for request in plan), reasons)


def iter_method_plans(
    model: Model,
    methods: Sequence[Method],
    plan_options: PlanOptions,
    layer_specs: Sequence[str | None] | None = None,
) -> Iterator[tuple[Request, ...] | MethodError]:
    """Yield the requests of each method alone, or the error that says why it does not suit.

    There is a request for each of `layer_specs`; methods that choose their layers by themselves
    have one only. Raises LayerError if the user chose layers that the model does not have.
    """
    specs = [plan_options.layer_spec] if layer_specs is None else layer_specs
    _check_layers_matter(methods, specs)
    check_view_sizes(model, plan_options.smoothing)
    planner = _Planner(model, plan_options)
    for method in methods:
        try:
            yield planner.plan_specs([method], specs)
        except MethodError as error:
            yield error
        except LayerError as error:
            if [*specs] != [None]:
                raise
            yield MethodError(str(error))


def _check_layers_matter(methods: Sequence[Method], layer_specs: Sequence[str | None]) -> None:
    if [*layer_specs] != [None] and methods and not any(map(takes_layers, methods)):
        names = ", ".join(m.name for m in methods)
        raise LayerError(
            f"--layers and --block have no effect on {names}, which read no layer of your choice; "
            "omit them"
        )


def _plan_default_method(
    model: Model, layer_specs: Sequence[str | None], plan_options: PlanOptions
) -> tuple[Request, ...]:
    """The first default method that suits; for chosen layers, the first that is per layer."""
    named = [*layer_specs] != [None]
    has_classes = model.output_kind != "embedding"
    names = DEFAULT_METHODS if has_classes else DEFAULT_CLASS_BLIND_METHODS
    *first, last = (m for m in map(find_method, names) if m.per_layer or not named)
    for method in first:
        with suppress(MethodError):
            requests = plan_layer_specs(model, [method], layer_specs, plan_options)
            if all(request.head is None or request.head.kind == "conv" for request in requests):
                return requests
    return plan_layer_specs(model, [last], layer_specs, plan_options)


@dataclass(frozen=True, slots=True)
class _Planner:
    """Plans methods for one model; each part of the model is looked for once."""

    model: Model
    plan_options: PlanOptions
    found_parts: dict[ModelPart[Any], Any] = field(default_factory=dict)
    found_layers: dict[tuple[str | None, BlockFinder], tuple[Layer, ...]] = field(
        default_factory=dict
    )
    found_refiners: dict[tuple[RefineOptions, tuple[Layer, ...]], Refiner | None] = field(
        default_factory=dict
    )

    def plan_specs(
        self, methods: Sequence[Method], layer_specs: Sequence[str | None]
    ) -> tuple[Request, ...]:
        """The requests for each specification of layers; the same layers only once."""
        found: dict[tuple[str, tuple[Layer, ...]], Request] = {}
        for number, spec in enumerate(layer_specs):
            planner = replace(self, plan_options=replace(self.plan_options, layer_spec=spec))
            # Methods that choose their layers by themselves need one plan only.
            for method in (m for m in methods if not number or takes_layers(m)):
                for request in planner.create_requests(method):
                    found.setdefault((method.name, request.source_layers), request)
        return tuple(found.values())

    def create_requests(self, method: Method) -> tuple[Request, ...]:
        """One request for all layers, or one for each."""
        self._check_has_target(method)
        parts = {part: self._find_part(part, method) for part in list_model_parts(method)}
        if method.per_layer:
            layers = self._choose_layers(method.default_layer, find_block_layer)
            check_layer_sizes(method, layers)
            return tuple(self._create_request(method, g, parts) for g in self._group(layers))
        if self.plan_options.names_layers and can_choose_blocks(method):
            blocks = self._choose_layers(None, find_block_output)
            groups = self._group(blocks)
            return tuple(self._create_block_request(method, g, parts) for g in groups)
        return (self._create_request(method, (), parts),)

    def _group(self, layers: tuple[Layer, ...]) -> list[tuple[Layer, ...]]:
        return [(la,) for la in layers] if self.plan_options.separates_layers else [layers]

    def _create_block_request(
        self, method: Method, blocks: tuple[Layer, ...], parts: Mapping[ModelPart[Any], Any]
    ) -> Request:
        """The request of a method that joins blocks by itself, for the chosen blocks only."""
        own = {
            part: part.select_blocks(found, blocks) if part.select_blocks else found
            for part, found in parts.items()
        }
        request = self._create_request(method, (), own)
        for key in method.options_for_chosen_blocks:
            if key in request.options or key not in method.options:
                raise MethodError(
                    f"{method.name}: --layers and --block choose its blocks; omit the option {key}"
                )
        options = {**request.options, **method.options_for_chosen_blocks}
        return replace(request, options=options, has_chosen_blocks=True)

    def _create_request(
        self, method: Method, layers: tuple[Layer, ...], parts: Mapping[ModelPart[Any], Any]
    ) -> Request:
        chosen = self.plan_options
        request = Request(
            method=method,
            layers=layers,
            # One layer is shown as it is: scaling serves the comparison with other layers.
            fusion=FUSIONS[(chosen.fusion or method.fusion) if len(layers) > 1 else "max"],
            options=chosen.options.get(method.name, {}),
            to_map=choose_map_function(method, chosen.smoothing, parts),
            model_parts=parts,
        )
        key = (choose_refine_options(method, chosen.refine), request.source_layers)
        if key not in self.found_refiners:
            self.found_refiners[key] = create_refiner(self.model, *key)
        return replace(request, refiner=self.found_refiners[key])

    def _check_has_target(self, method: Method) -> None:
        if method.class_specific and self.model.output_kind == "embedding":
            blind = [name for name, other in METHODS.items() if not other.class_specific]
            raise MethodError(
                f"{method.name} explains a class, and {self.model.name} has no classes: write "
                f"--target like:REFERENCE.jpg, or choose a method that needs no class: "
                f"{', '.join(blind)}"
            )

    def _find_part(self, part: ModelPart[Any], method: Method) -> Any:
        if part not in self.found_parts:
            self.found_parts[part] = part.find(self.model)
        if self.found_parts[part] is None:
            others = [name for name, other in METHODS.items() if not list_model_parts(other)]
            raise MethodError(
                f"{method.name} needs {part.describe_missing(self.model)}. "
                f"Try {', '.join(others[:4])}; `camcli methods` lists more"
            )
        return self.found_parts[part]

    def _choose_layers(self, default: str | None, find_block: BlockFinder) -> tuple[Layer, ...]:
        """The layers that the user chose; otherwise those of the method's default."""
        chosen = self.plan_options
        spec = chosen.layer_spec if chosen.names_layers else default
        key = (spec, find_block)
        if key not in self.found_layers:
            self.found_layers[key] = find_chosen_layers(self.model, spec, find_block)
        return self.found_layers[key]
