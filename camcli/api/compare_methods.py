"""Compare methods on one image from Python: maps side by side, and how alike they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from camcli.api.explain_images import choose_methods, create_run_config
from camcli.api.explanation import Explanation
from camcli.api.image_inputs import ImageLike, iter_images
from camcli.core.errors import ImageError, MethodError, UsageError
from camcli.core.types import Failure
from camcli.engine.plan import iter_method_plans
from camcli.io.pictures import encode_sheet
from camcli.io.writers import DrawingStyle
from camcli.methods.registry import list_cheap_methods
from camcli.models.introspection.gradient_mode import allow_gradients
from camcli.models.model import Model
from camcli.runs.comparison import (
    Comparison,
    ComparisonRow,
    compare_methods,
    create_comparison_row,
)
from camcli.runs.comparison_sheet import draw_comparison


@dataclass(frozen=True, slots=True, repr=False)
class MethodComparison:
    """Several methods on one image, each timed by itself. A notebook shows it as its picture."""

    comparison: Comparison
    row: ComparisonRow

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods that were compared, in the order of `spearman`."""
        return tuple(timed.result.method_name for timed in self.comparison.timed_results)

    @property
    def left_out(self) -> Mapping[str, str]:
        """The reason why each left-out method does not apply to the model, by method name."""
        return self.row.reason_by_method

    @property
    def explanations(self) -> tuple[Explanation, ...]:
        """The map of each method, for the first target class."""
        size = self.row.base_config.model.input_size
        results = [timed.result for timed in self.comparison.timed_results]
        return tuple(Explanation(result, result.explanations[0], size) for result in results)

    @property
    def seconds(self) -> tuple[float, ...]:
        """The seconds that each method took, without reading the image."""
        return tuple(timed.seconds for timed in self.comparison.timed_results)

    @property
    def spearman(self) -> NDArray[np.float64]:
        """(N,N) rank correlation of each pair of maps; NaN where a map is blank."""
        matrix: NDArray[np.float64] = self.comparison.spearman[0]
        return matrix

    def picture(self) -> Image.Image:
        """The image and every map; the numbers are in `seconds` and `spearman`."""
        style = DrawingStyle(self.row.base_config.model.input_size, with_boxes=False)
        return draw_comparison(self.comparison, 0, self.methods, [self.row], style)

    def _repr_jpeg_(self) -> bytes:
        return encode_sheet(self.picture(), "jpg")

    def __repr__(self) -> str:
        name = self.comparison.source.name
        return f"MethodComparison({name!r}, {', '.join(self.methods)})"


@allow_gradients()
def compare(
    model: Model,
    image: ImageLike,
    methods: str | Sequence[str] | None = None,
    **options: Any,
) -> MethodComparison:
    """Compare methods on one image: the map of each, its time, and their rank correlation.

    Without `methods` it takes every method that needs at most a few passes, and leaves out those
    that do not apply to the model. Named methods must apply, or it raises MethodError. `options`
    are those of `explain`. Raises ImageError for an image that cannot be read.
    """
    chosen = choose_methods(methods) or list_cheap_methods()
    config, plan_options, layer_specs = create_run_config(model, chosen, **options)
    found = iter_method_plans(config.model, chosen, plan_options, layer_specs)
    plans = dict(zip((m.name for m in chosen), found, strict=True))
    row = create_comparison_row("", "", config, chosen, plans)
    if row.reason_by_method and (methods or not any(row.configs)):
        raise MethodError(next(iter(row.reason_by_method.values())))
    row = row.select_columns([n for n, own in enumerate(row.configs) if own])
    sources = list(iter_images(image, model.transform.channel_count))
    if len(sources) != 1:
        raise UsageError(f"compare takes one image, not {len(sources)}")
    comparison = compare_methods([row], sources[0])
    if isinstance(comparison, Failure):
        raise ImageError(str(comparison))
    return MethodComparison(comparison, row)
