"""What is passed between the rooms. Data only.

Shapes: B batch, C channels, H W map or image, N tokens, K classes, L layers.
Pixel rectangles are half-open: left <= x < right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from camcli.core.layer_names import parse_layer_name

if TYPE_CHECKING:
    from PIL.Image import Image

    from camcli.core.geometry import Float32Array, View

FitMode = Literal["squash", "crop", "pad", "tencrop"]
Layout = Literal["NCHW", "NHWC", "NLC"]
FileStamp = tuple[int, int]  # bytes of a file, and the nanosecond at which it was last written
MapStatus = Literal["ok", "constant", "zero_gradient", "non_finite"]


class StatusText(NamedTuple):
    """Why a map has no answer: briefly, as a picture shows it, and in full, as messages do."""

    caption: str
    message: str


STATUS_TEXTS: Mapping[str, StatusText] = {
    "constant": StatusText(
        "the map is the same everywhere",
        "the map is the same everywhere (relu set all of it to zero, or nothing varies)",
    ),
    "zero_gradient": StatusText(
        "the gradient is zero here",
        "the class score does not depend on this layer's map (its gradient is zero)",
    ),
    "non_finite": StatusText(
        "NaN or infinity in the map",
        "the map holds NaN or infinity; check the weights and the image",
    ),
}


@dataclass(frozen=True, slots=True)
class ImageSource:
    """One image to read: where it is, its name relative to what the user gave, its output stem."""

    path: Path
    name: str
    output_stem: str


@dataclass(frozen=True, slots=True)
class Failure:
    """An input that yields no result, and why."""

    name: str
    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Transform:
    """How a model wants its input: size (H, W), normalisation, resampling, share of a crop."""

    size: tuple[int, int]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    crop_pct: float = 1.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One image that was read: its (V,3,H,W) inputs, its fixed target if any, and a look at it.

    `view` is what a map of it shows: of one input, or of the crops' maps put together; `stamp`
    tells the file from a later one of that name.
    """

    source: ImageSource
    image_loader: Callable[[], Image]
    inputs: Float32Array
    view: View
    target_classes: tuple[int, ...] = ()
    file_stamp: FileStamp | None = None

    @property
    def image(self) -> Image:
        """The upright original; of a large one it is decoded once more. Raises ImageError then."""
        return self.image_loader()


@dataclass(frozen=True, slots=True)
class Layer:
    """A module whose output is a map: (B,C,H,W), (B,H,W,C), or (B,prefix+H*W,C) tokens.

    Tokens lie row by row, or as `order` has them: its n-th is the token at the n-th place of the
    grid. Layers of equal `output` hand on the very same tensor; `feeds` are the attention modules
    whose input it is.
    """

    name: str
    layout: Layout
    channels: int
    grid: tuple[int, int]
    prefix_token_count: int = 0
    stage: int | None = None
    block: int | None = None
    token_order: tuple[int, ...] = field(default=(), compare=False, repr=False)
    output_id: int = field(default=0, compare=False, repr=False)
    attention_consumers: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def module_name(self) -> str:
        """The name of the module, without the index of an output."""
        return parse_layer_name(self.name).module

    @property
    def token_count(self) -> int:
        """How many it has as tokens, the prefix included."""
        return self.prefix_token_count + self.grid[0] * self.grid[1]


@dataclass(frozen=True, slots=True)
class ImageMap:
    """One map of one image: as computed, and as it is shown, in [0, 1].

    `part` is what of it shows the image, once that was made: see `maps.visible`.
    """

    name: str
    values: Float32Array
    normalized: Float32Array
    status: MapStatus
    visible_part: Float32Array | None = None


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the upright original, and the mean of the map over its region."""

    x1: int
    y1: int
    x2: int
    y2: int
    score: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one method says of one class of one image.

    `score` is its probability, `rank` the number of classes with a higher logit, and `against` the
    classes, with their names, that it is set against.
    """

    class_index: int
    class_name: str
    score: float
    rank: int
    fused_map: ImageMap
    layer_maps: tuple[ImageMap, ...]
    part_maps: tuple[ImageMap, ...] = ()
    boxes: tuple[Box, ...] = ()
    rival_classes: tuple[tuple[int, str], ...] = ()

    @property
    def class_label(self) -> str:
        """The class, and what it is set against: "tabby vs lynx", "tabby vs 3 nearest"."""
        return format_class_label(self.class_name, [name for _, name in self.rival_classes])


def format_class_label(class_name: str, rival_names: Sequence[str]) -> str:
    """A class and what it is set against, in words."""
    named = [f"{len(rival_names)} nearest"] if len(rival_names) > 1 else rival_names
    return " vs ".join([class_name, *named])


@dataclass(frozen=True, slots=True)
class Result:
    """What one method says of one image, and the files that show it, a table a class.

    `labels` has the words under which a grid shows a layer or part; `tag` goes into file names
    where one run asks several things of an image; `concepts` says that the parts are the answer.
    """

    sample: Sample
    method_name: str
    layer_names: tuple[str, ...]
    explanations: tuple[Explanation, ...]
    threshold: str | float
    map_captions: Mapping[str, str]
    file_tag: str = ""
    head_kind: str | None = None
    has_concepts: bool = False
    output_files: tuple[dict[str, str], ...] = ()
