"""Plan a figure: the runs that it needs, and the map that each of its cells shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from camcli.core.errors import UsageError
from camcli.core.types import Layer
from camcli.engine.plan import PlanOptions, plan_requests
from camcli.engine.request import Request
from camcli.engine.targets import DEFAULT_TARGET
from camcli.methods.registry import DEFAULT_METHODS, Method, find_method
from camcli.models.model import Model
from camcli.runs.figure_columns import CellSpec, find_part_method
from camcli.runs.figure_heads import format_head
from camcli.runs.figure_layers import list_layers, needs_request
from camcli.runs.run_config import RunConfig


@dataclass(frozen=True, slots=True)
class FigureCell:
    """A map of a figure: the number of its run, its request, and its name; None is the whole map.

    `map_name` is the name of a layer or of a part.
    """

    run: int
    request: int
    map_name: str | None
    is_class_specific: bool


@dataclass(frozen=True, slots=True)
class FigureColumn:
    """A column: its head, and its cell in each row of an image; None leaves it empty.

    A column of images has no cells. With a `target` there is a picture for each of its classes.
    """

    head: str
    cells: tuple[FigureCell | None, ...]
    target: str | None = None
    is_image: bool = False


@dataclass(frozen=True, slots=True)
class FigurePlan:
    """The columns and rows of a figure, and the runs that compute it.

    An image takes a row for each entry of `row_heads`. With `has_captions` each picture says its
    class, because the classes of a row differ.
    """

    columns: tuple[FigureColumn, ...]
    row_heads: tuple[str, ...]
    runs: tuple[RunConfig, ...]
    has_captions: bool

    @property
    def has_class_columns(self) -> bool:
        """Whether the classes of an image lie in columns; otherwise each is a row."""
        return any(column.target for column in self.columns)


@dataclass(frozen=True, slots=True)
class FigureSetup:
    """The options of the command, which hold where a column names nothing else.

    `networks` has the network of each `model:`, and under None the usual one. `create_config` makes
    the configuration of a run, without requests, from a network and a `--target`.
    """

    networks: Mapping[str | None, Model]
    create_config: Callable[[Model, Sequence[str]], RunConfig]
    plan_options: PlanOptions
    methods: Sequence[Method] = ()
    targets: Sequence[str] = (DEFAULT_TARGET,)


def create_figure_plan(
    rows: Sequence[CellSpec], columns: Sequence[CellSpec], setup: FigureSetup
) -> FigurePlan:
    """Find the layers of every column, and join what one forward pass can give to one run.

    Raises UsageError, LayerError or MethodError for a cell that no run can give.
    """
    planner = _Planner(setup, _choose_default_method([*rows, *columns], setup))
    placed = [(column, planner.list_cell_layers(rows, column)) for column in columns]
    found = [
        each for column, layers in placed for each in planner.iter_columns(rows, column, layers)
    ]
    if not planner.runs:
        raise UsageError("--columns: name at least one map, such as fused")
    has_models = any(spec.model for spec in (*rows, *columns))
    return FigurePlan(
        columns=tuple(found),
        row_heads=tuple(format_head(row) for row in rows),
        runs=tuple(planner.runs.values()),
        has_captions=has_models or any(column.target for column in found),
    )


def _choose_default_method(specs: Sequence[CellSpec], setup: FigureSetup) -> Method | None:
    """The method of columns that name none; None lets each network have its own."""
    if setup.methods:
        return setup.methods[0]
    if any(spec.layers for spec in specs):
        return find_method(DEFAULT_METHODS[-1])
    return None


CellLayers = Sequence[Sequence[Layer | None]]  # of each row, the layers that a column stands for


@dataclass(frozen=True, slots=True)
class _RequestKey:
    """What one request is made for; a request for named layers is another than the default one."""

    model: str | None
    targets: tuple[str, ...]
    method_name: str
    has_layers: bool


@dataclass(frozen=True, slots=True)
class _Planner:
    """Gives each cell its run and request; requests of one network and target share a run."""

    setup: FigureSetup
    default_method: Method | None
    layers_by_key: dict[_RequestKey, list[str]] = field(default_factory=dict)
    runs: dict[tuple[str | None, tuple[str, ...]], RunConfig] = field(default_factory=dict)

    def list_cell_layers(self, rows: Sequence[CellSpec], column: CellSpec) -> CellLayers:
        """For each row the layers that a column stands for; [None] where it names no layer.

        A request gets the layers of all its columns, so they are noted before cells are created.
        """
        if column.image:
            return [[None] for _ in rows]
        found = [self._list_layers(row.join(column)) for row in rows]
        if len({len(layers) for layers in found}) > 1:
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
        for of_rows in zip(*layers, strict=True):
            several = len(layers[0]) > 1
            yield FigureColumn(
                head=format_head(column, of_rows[0] if several else None),
                cells=tuple(
                    self._create_cell(spec, layer) if number == 0 or spec is not column else None
                    for number, (spec, layer) in enumerate(zip(specs, of_rows, strict=True))
                ),
                target=next((spec.target for spec in specs if spec.target), None),
                is_image=column.image,
            )

    def _list_layers(self, spec: CellSpec) -> Sequence[Layer | None]:
        if not spec.layers:
            return [None]
        method = self._find_method(spec)
        model = self.setup.networks[spec.model]
        assert method is not None  # a figure that names layers has a default method
        own = self._plan(model, method, []).source_layers if needs_request(method, spec) else ()
        return list_layers(model, method, spec.layers, own)

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

    def _create_cell(self, spec: CellSpec, layer: Layer | None) -> FigureCell | None:
        if spec.image:
            return None
        key = self._create_key(spec)
        model = self.setup.networks[key.model]
        place = (key.model, key.targets)
        if place not in self.runs:
            self.runs[place] = self.setup.create_config(model, key.targets)
        run = self.runs[place]
        request = self._plan(run.model, self._find_method(spec), self.layers_by_key.get(key, []))
        identities = [identify_request(other) for other in run.requests]
        if identify_request(request) not in identities:
            identities.append(identify_request(request))
            self.runs[place] = replace(run, requests=(*run.requests, request))
        map_name = layer.name if layer else spec.part
        return FigureCell(
            run=list(self.runs).index(place),
            request=identities.index(identify_request(request)),
            map_name=map_name,
            is_class_specific=_depends_on_class(request.method, map_name),
        )

    def _plan(self, model: Model, method: Method | None, layers: Sequence[str]) -> Request:
        """The request of a method for these layers, or for those that the options choose."""
        options = self.setup.plan_options
        named = bool(layers) and method is not None and method.per_layer
        (request, *_) = plan_requests(
            model,
            [method] if method else [],
            layer_spec=",".join(layers) if named else options.layer_spec,
            fusion=options.fusion,
            options=options.options,
            smoothing=options.smoothing,
        )
        return request


def _depends_on_class(method: Method, map_name: str | None) -> bool:
    """Whether a map differs between classes; the attention in TS-CAM is that of the image."""
    own_maps = (None, "semantic", method.caption)
    return method.class_specific and (method.per_layer or map_name in own_maps)


RequestIdentity = tuple[str, tuple[str, ...]]


def identify_request(request: Request) -> RequestIdentity:
    """What tells the requests of a run apart, and is known of a result too."""
    return request.method.name, tuple(layer.name for layer in request.source_layers)
