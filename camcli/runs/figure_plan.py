"""Plan a figure: the runs that it needs, and the map that each of its cells shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from camcli.core.errors import LayerError, MethodError, UsageError
from camcli.core.types import Layer
from camcli.engine.plan import PlanOptions, plan_requests
from camcli.engine.providers.provider_registry import takes_layers
from camcli.engine.request import Request
from camcli.engine.targets import DEFAULT_TARGET
from camcli.methods.registry import DEFAULT_METHODS, Method, find_method
from camcli.models.model import Model
from camcli.runs.figure_columns import CellSpec, find_part_method
from camcli.runs.figure_heads import format_head
from camcli.runs.figure_layers import list_layers, needs_own_requests, needs_request
from camcli.runs.figure_table import (
    FigureCell,
    FigureColumn,
    FigurePlan,
    RefusedCell,
    identify_request,
)
from camcli.runs.run_config import RunConfig


@dataclass(frozen=True, slots=True)
class FigureSetup:
    """The options of the command, which hold where a column names nothing else.

    `networks` has the network of each `model:`, and under None the usual one. `create_config` makes
    the configuration of a run, without requests, from a network and a `--target`. With
    `has_layer_methods` the layers of the options are for some methods, and others ignore them.
    """

    networks: Mapping[str | None, Model]
    create_config: Callable[[Model, Sequence[str]], RunConfig]
    plan_options: PlanOptions
    methods: Sequence[Method] = ()
    targets: Sequence[str] = (DEFAULT_TARGET,)
    has_layer_methods: bool = False


def create_figure_plan(
    rows: Sequence[CellSpec], columns: Sequence[CellSpec], setup: FigureSetup
) -> FigurePlan:
    """Find the layers of every column, and join what one forward pass can give to one run.

    A named method that does not suit a network is left out. Raises UsageError, LayerError or
    MethodError for another cell that no run can give, and if no map is left.
    """
    planner = _Planner(setup, _choose_default_method([*rows, *columns], setup))
    placed = [(column, planner.list_cell_layers(rows, column)) for column in columns]
    found = [
        each for column, layers in placed for each in planner.iter_columns(rows, column, layers)
    ]
    if not planner.runs and planner.left_out:
        raise MethodError(next(iter(planner.left_out.values())))
    if not planner.runs:
        raise UsageError("--columns: name at least one map, such as fused")
    has_models = any(spec.model for spec in (*rows, *columns))
    return FigurePlan(
        columns=tuple(found),
        row_heads=tuple(format_head(row) for row in rows),
        runs=tuple(planner.runs.values()),
        has_captions=has_models or any(column.target for column in found),
        left_out=planner.left_out,
    )


def _choose_default_method(specs: Sequence[CellSpec], setup: FigureSetup) -> Method | None:
    """The method of columns that name none; None lets each network have its own."""
    if setup.methods:
        return setup.methods[0]
    if any(spec.layers for spec in specs):
        return find_method(DEFAULT_METHODS[-1])
    return None


# Of each row, the layers that a column stands for; no layer if its method does not suit.
CellLayers = Sequence[Sequence[Layer | None]]
Place = tuple[str | None, tuple[str, ...], int]  # a model, its targets, and the number of their run


@dataclass(frozen=True, slots=True)
class _RequestKey:
    """What one request is made for; a request for named layers is another than the default one."""

    model: str | None
    targets: tuple[str, ...]
    method_name: str
    has_layers: bool

    @property
    def place(self) -> Place:
        """The first run of the model and the targets."""
        return self.model, self.targets, 0


@dataclass(frozen=True, slots=True)
class _Planner:
    """Gives each cell its run and request; requests of one network and target share a run.

    `configs` has the configuration of each place, `runs` those that cells use.
    """

    setup: FigureSetup
    default_method: Method | None
    layers_by_key: dict[_RequestKey, list[str]] = field(default_factory=dict)
    configs: dict[Place, RunConfig] = field(default_factory=dict)
    runs: dict[Place, RunConfig] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def list_cell_layers(self, rows: Sequence[CellSpec], column: CellSpec) -> CellLayers:
        """For each row the layers that a column stands for; [None] where it names no layer.

        A request gets the layers of all its columns, so they are noted before cells are created.
        """
        if column.image:
            return [[None] for _ in rows]
        found = [self._list_suitable_layers(row.join(column)) for row in rows]
        if len({len(layers) for layers in found if layers}) > 1:
            raise UsageError(f"--columns {column.text}: the rows have different numbers of layers")
        for row, layers in zip(rows, found, strict=True):
            names = [layer.name for layer in layers if layer]
            if names:
                noted = self.layers_by_key.setdefault(self._create_key(row.join(column)), [])
                noted += [name for name in names if name not in noted]
        return found

    def iter_columns(
        self, rows: Sequence[CellSpec], column: CellSpec, layers: CellLayers
    ) -> Iterator[FigureColumn]:
        """The columns that one specification stands for: one for each of its layers."""
        specs = [row.join(column) for row in rows]
        width = max(1, *map(len, layers))
        for position in range(width):
            of_rows = [found[position] if found else None for found in layers]
            layer = next(filter(None, of_rows), None)
            yield FigureColumn(
                head=format_head(column, layer if width > 1 else None),
                cells=tuple(
                    self._create_cell(spec, own, is_suitable=bool(layers[row]))
                    if row == 0 or spec is not column
                    else None
                    for row, (spec, own) in enumerate(zip(specs, of_rows, strict=True))
                ),
                target=next((spec.target for spec in specs if spec.target), None),
                is_image=column.image,
            )

    def _list_suitable_layers(self, spec: CellSpec) -> Sequence[Layer | None]:
        """The layers of a cell; none, and a note, if its method does not suit the network."""
        method = self._find_method(spec)
        model = self._find_config(self._create_key(spec)).model
        try:
            layers = self._list_layers(spec, model)
            self._plan(model, method, [layer.name for layer in layers if layer])
        except MethodError as error:
            if method is None:
                raise
            several = len(self.setup.networks) > 1
            self.left_out[f"{method.name} ({model.name})" if several else method.name] = str(error)
            return []
        return layers

    def _list_layers(self, spec: CellSpec, model: Model) -> Sequence[Layer | None]:
        if not spec.layers:
            return [None]
        method = self._find_method(spec)
        assert method is not None  # a figure that names layers has a default method
        own = self._plan(model, method, []).source_layers if needs_request(method, spec) else ()
        return list_layers(model, method, spec.layers, own)

    def _find_config(self, key: _RequestKey) -> RunConfig:
        """The configuration of a run without requests."""
        if key.place not in self.configs:
            network = self.setup.networks[key.model]
            self.configs[key.place] = self.setup.create_config(network, key.targets)
        return self.configs[key.place]

    def _find_method(self, spec: CellSpec) -> Method | None:
        if spec.part and not spec.method:
            return find_part_method(self.setup.methods)
        return spec.method or self.default_method

    def _create_key(self, spec: CellSpec) -> _RequestKey:
        targets = (spec.target,) if spec.target else tuple(self.setup.targets)
        method = self._find_method(spec)
        key = _RequestKey(spec.model, targets, method.name if method else "", has_layers=True)
        joins = spec.fused and key in self.layers_by_key
        return key if spec.layers or joins else replace(key, has_layers=False)

    def _create_cell(
        self, spec: CellSpec, layer: Layer | None, *, is_suitable: bool
    ) -> FigureCell | RefusedCell | None:
        if spec.image:
            return None
        if not is_suitable:
            return RefusedCell("does not suit the network")
        key, method = self._create_key(spec), self._find_method(spec)
        names = self.layers_by_key.get(key, [])
        if layer and method and needs_own_requests(method):
            names, layer = [layer.name], None
        config = self._find_config(key)
        request = self._plan(config.model, method, names)
        place = self._find_place(key, request)
        run = self.runs.setdefault(place, config)
        identities = [identify_request(other) for other in run.requests]
        if identify_request(request) not in identities:
            identities.append(identify_request(request))
            self.runs[place] = replace(run, requests=(*run.requests, request))
        map_name = layer.name if layer else spec.part
        return FigureCell(
            run=list(self.runs).index(place),
            request=identities.index(identify_request(request)),
            map_name=map_name,
            is_class_specific=depends_on_class(request.method, map_name),
            drawing=spec.drawing,
        )

    def _find_place(self, key: _RequestKey, request: Request) -> Place:
        """The first run in which no other request has the name of this one.

        The attention of all blocks is another map than the one that `attention` gives by itself.
        """
        for number in count():
            place = (key.model, key.targets, number)
            requests = self.runs[place].requests if place in self.runs else ()
            same = [r for r in requests if identify_request(r) == identify_request(request)]
            if all(other.options == request.options for other in same):
                return place
        raise AssertionError  # count() has no end

    def _plan(self, model: Model, method: Method | None, layers: Sequence[str]) -> Request:
        """The request of a method for these layers, or for those that the options choose.

        Raises MethodError if the method does not suit the network.
        """
        options = self.setup.plan_options
        chosen = options.layer_spec
        if method and not takes_layers(method) and self.setup.has_layer_methods:
            chosen = None
        try:
            (request, *_) = plan_requests(
                model,
                [method] if method else [],
                layer_spec=",".join(layers) if layers else chosen,
                fusion=options.fusion,
                options=options.options,
                smoothing=options.smoothing,
                refine=options.refine,
            )
        except LayerError as error:
            if layers or chosen:
                raise
            raise MethodError(str(error)) from None
        return request


def depends_on_class(method: Method, map_name: str | None) -> bool:
    """Whether a map differs between classes; the attention in TS-CAM is that of the image."""
    own_maps = (None, "semantic", method.caption)
    return method.class_specific and (method.per_layer or map_name in own_maps)
