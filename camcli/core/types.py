"""The records that camcli's packages exchange.

Shapes: B batch, C channels, H W map or image, N tokens, K classes, L layers.
Pixel rectangles are half-open: left <= x < right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from camcli.core.layer_names import parse_layer_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from camcli.core.geometry import Float32Array, View

FitMode = Literal["squash", "crop", "pad", "tencrop"]
Layout = Literal["NCHW", "NHWC", "NLC"]
RefineKind = Literal["none", "affinity", "guided"]  # how a map is refined by its own image
FileStamp = tuple[int, int]  # a file's size in bytes, and its modification time in nanoseconds
DEFAULT_MAX_PIXELS = 128_000_000  # of an image file; a photograph of 100 megapixels has less
MAX_READABLE_PIXELS = 178_956_970  # Pillow takes larger images for decompression bombs
MapStatus = Literal["ok", "constant", "zero_gradient", "non_finite"]
# What a network's outputs (B,K) are. A single output may be a class or a value: "undecided".
OutputKind = Literal["softmax", "sigmoid", "undecided", "regression", "similarity", "embedding"]
ScoreKind = Literal["probability", "value", "similarity", "none"]


class StatusText(NamedTuple):
    """Why a map has no answer: a short text for pictures, and a full one for messages."""

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
    """One image to read: its path, its name relative to the input, its output stem.

    `image` holds an image or an array that is in memory already; its path is only a name.
    """

    path: Path
    name: str
    output_stem: str
    image: Image | NDArray[Any] | None = field(
        default=None, compare=False, repr=False, kw_only=True
    )


@dataclass(frozen=True, slots=True)
class Failure:
    """An input without a result, and the reason."""

    name: str
    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Transform:
    """The input that a model expects: size (H, W), normalisation, resampling, crop fraction.

    `mean` and `std` have one value for each channel of the input.
    """

    size: tuple[int, int]
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    crop_pct: float = 1.0

    @property
    def channel_count(self) -> int:
        """The number of channels of the input."""
        return len(self.mean)

    def with_channels(self, count: int) -> Transform:
        """The transform for `count` channels: other counts get the average of mean and std."""
        return replace(
            self, mean=_spread_values(self.mean, count), std=_spread_values(self.std, count)
        )


def _spread_values(values: tuple[float, ...], count: int) -> tuple[float, ...]:
    return values if len(values) == count else (sum(values) / len(values),) * count


@dataclass(frozen=True, slots=True)
class Sample:
    """One image, ready for the network: its (V,C,H,W) inputs and its geometry.

    `view` is the rectangle that a map shows: the view of the input, or of all crops merged.
    `target_classes` are, for each rule of the target, the classes that the image fixes.
    `file_stamp` differs if the file changes later. `has_more_frames` means that the file has frames
    or pages after the one that is explained.
    """

    source: ImageSource
    image_loader: Callable[[], Image]
    inputs: Float32Array
    view: View
    target_classes: tuple[tuple[int, ...], ...] = ()
    file_stamp: FileStamp | None = None
    has_more_frames: bool = False

    @property
    def image(self) -> Image:
        """The upright original in RGB. A large one is decoded again, which may raise ImageError."""
        return self.image_loader()


PIXELS = "pixels"  # the name of the input itself as a layer; modules of networks have others


@dataclass(frozen=True, slots=True)
class Layer:
    """A module whose output is a map: (B,C,H,W), (B,H,W,C), or (B,prefix+H*W,C) tokens.

    Tokens lie row by row, or in `token_order`: its n-th entry is the token at the n-th position of
    the grid. Layers with the same `output_id` output the same tensor. `attention_consumers` are the
    attention modules that take the output as their input.
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
        """The number of tokens, prefix tokens included."""
        return self.prefix_token_count + self.grid[0] * self.grid[1]


@dataclass(frozen=True, slots=True)
class ImageMap:
    """One map of one image: its raw values, and the normalised map in [0, 1].

    `visible_part` is the part that shows the image, after `crop_visible_map` computed it.
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
class ClassExplanation:
    """The maps and boxes of one method for one class of one image.

    `score` is the probability of the class, and `rank` the number of classes with a higher logit.
    `score_kind` tells if it is the value of a regression or a cosine similarity instead; a network
    without classes has neither index nor name nor score. `region` (h,w) marks what the boxes bound,
    on the grid of the map's visible part. `rival_classes` are the index and name of each class that
    a contrast compares it with. `targets` are the rules that asked for the class. `is_predicted`
    means that the network predicts it: the highest logit, or with a sigmoid a probability of at
    least 0.5. `is_low` marks the map of -y.
    """

    class_index: int | None
    class_name: str
    score: float
    rank: int
    fused_map: ImageMap
    layer_maps: tuple[ImageMap, ...]
    part_maps: tuple[ImageMap, ...] = ()
    boxes: tuple[Box, ...] = ()
    region: NDArray[np.bool_] | None = field(default=None, compare=False, repr=False)
    rival_classes: tuple[tuple[int, str], ...] = ()
    targets: tuple[str, ...] = ()
    is_predicted: bool = False
    is_low: bool = False
    score_kind: ScoreKind = "probability"

    @property
    def class_label(self) -> str:
        """The class and its rivals: "tabby", "tabby vs lynx" or "tabby vs 3 nearest"."""
        rival_names = [name for _, name in self.rival_classes]
        return format_class_label(self.class_name, rival_names, is_low=self.is_low)

    @property
    def title(self) -> str:
        """The class and its score: "tabby 0.83", "y = -2.96"; empty without a class."""
        return format_title(self.class_label, self.score, self.score_kind)


def format_class_label(class_name: str, rival_names: Sequence[str], *, is_low: bool = False) -> str:
    """Format a class and its rivals as text."""
    named = [f"{len(rival_names)} nearest"] if len(rival_names) > 1 else rival_names
    return " vs ".join([f"low {class_name}" if is_low else class_name, *named])


def format_title(class_label: str, score: float, score_kind: str) -> str:
    """Format a class and its score as text: a value and a similarity have a sign of equality."""
    if score_kind == "none":
        return ""
    return f"{class_label} {'' if score_kind == 'probability' else '= '}{score:.2f}"


@dataclass(frozen=True, slots=True)
class Result:
    """The explanations of one method for one image, and the output files of each class.

    `map_captions` are the texts under the layers and parts of a grid. `file_tag` is the part of
    a file name for the method and, where it has several results, the layer. `has_concepts` means
    that the parts are the answer. `is_pixel_level` means that a map has a value for each pixel of
    the input, as saliency has; `is_class_specific`, that it depends on the class. `refine` is the
    value of `--refine` that gives exactly the refinement of the maps.
    """

    sample: Sample
    method_name: str
    layer_names: tuple[str, ...]
    explanations: tuple[ClassExplanation, ...]
    threshold: str | float
    map_captions: Mapping[str, str]
    file_tag: str
    head_kind: str | None = None
    has_concepts: bool = False
    is_pixel_level: bool = False
    is_class_specific: bool = True
    refine: str = ""
    output_files: tuple[dict[str, str], ...] = ()
