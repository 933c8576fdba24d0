"""The settings of a run, and the state that the run updates while it works."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from camcli.core.boxes import BoxSelection
from camcli.core.concurrency import PhaseTimer
from camcli.core.errors import UsageError
from camcli.core.geometry import Crops
from camcli.core.types import DEFAULT_MAX_PIXELS, FitMode
from camcli.engine.providers.base import ProgressCallback
from camcli.engine.request import Request
from camcli.engine.smoothing import NO_SMOOTHING, Smoothing
from camcli.engine.target_rules import Target
from camcli.io.transforms import create_ten_crops
from camcli.models.model import Model

Precision = Literal["fp32", "bf16"]
MAX_WAITING_IMAGE_BYTES = 2**31  # memory for decoded images that wait for their maps


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The settings for every image of a run.

    `threshold` None means the threshold of the checkpoint, or else of the method. `picture_bands`
    are the bands that pictures show, from 1; without them the first three, or the first. An image
    file of more than `max_pixels` fails.
    `report_progress(done, total)` counts the changed inputs of one batch.
    """

    model: Model
    requests: tuple[Request, ...]
    target: Target
    fit: FitMode = "squash"
    batch_size: int = 8
    workers: int = 2
    max_pixels: int = DEFAULT_MAX_PIXELS
    threshold: str | float | None = None
    box_selection: BoxSelection = "largest"
    smoothing: Smoothing = NO_SMOOTHING
    precision: Precision | Literal["auto"] = "fp32"
    is_compiled: bool = False
    picture_bands: tuple[int, ...] = ()
    report_progress: ProgressCallback = lambda _done, _total: None

    def find_threshold(self, request: Request) -> str | float:
        """Return the box threshold of a request: the user's, the checkpoint's or the method's.

        Maps that an affinity refined have another one, because they are broader.
        """
        if self.threshold is not None:
            return self.threshold
        method = request.method
        if request.refiner and request.refiner.kind == "affinity":
            plain_name = method.name.partition(":")[0]
            name = f"{plain_name}:refine=affinity"
            return self.model.thresholds.get(name, method.refined_threshold)
        return self.model.thresholds.get(method.name, method.threshold)

    def __post_init__(self) -> None:
        """Raise UsageError for a band that the network's images do not have."""
        count = self.model.transform.channel_count
        if self.picture_bands and max(self.picture_bands) > count:
            raise UsageError(
                f"--rgb: there is no band {max(self.picture_bands)}; the network takes {count} "
                f"channel{'s' * (count != 1)}"
            )

    @property
    def read_ahead_count(self) -> int:
        """The number of images to read ahead, so that a slow file does not delay the others."""
        return 2 * self.batch_size + self.workers

    @property
    def write_behind_count(self) -> int:
        """The largest number of results that may wait to be written."""
        return len(self.requests) * self.batch_size + self.workers

    @property
    def max_kept_pixels(self) -> int:
        """The size in pixels up to which a decoded image is kept until its maps are computed.

        All images that wait then fit into MAX_WAITING_IMAGE_BYTES. Larger images are decoded again.
        """
        return MAX_WAITING_IMAGE_BYTES // (
            3 * (self.read_ahead_count + self.batch_size + self.write_behind_count)
        )

    @property
    def crops(self) -> Crops | None:
        """The crops that one image is cut into; None without `--fit tencrop`."""
        return create_ten_crops(self.model.input_size) if self.fit == "tencrop" else None


@dataclass(slots=True)
class RunState:
    """The state of a run, which callers may read during the run or at its end.

    `precision` is None until the first batch has been measured. `folded_norm_count` counts the
    batch norms that were folded into convolutions. `notes` are sentences for the user.
    """

    max_images_at_once: int
    precision: Precision | None = None
    folded_norm_count: int = 0
    notes: list[str] = field(default_factory=list)
    timer: PhaseTimer = field(default_factory=PhaseTimer)

    @classmethod
    def from_config(cls, config: RunConfig, earlier_precision: object = None) -> RunState:
        """Create the state at the start of a run.

        A resumed run keeps the precision that the earlier run measured.
        """
        state = cls(config.batch_size)
        if config.precision != "auto":
            state.precision = config.precision
        elif earlier_precision == "fp32" or earlier_precision == "bf16":
            state.precision = earlier_precision
        return state

    def halve_batch(self, failed_count: int) -> None:
        """Remember that this many images at once do not fit into memory, and take half of them."""
        self.max_images_at_once = failed_count // 2
        self.notes.append(
            f"out of memory: continuing with {self.max_images_at_once} images at a time"
        )

    def settle_precision(self, precision: Precision, reason: str) -> None:
        """Compute all further batches in this precision."""
        self.precision = precision
        self.notes.append(reason)
