"""What a run does with every image, and what it finds out on the way. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from camcli.core.boxes import BoxSelection
from camcli.core.geometry import Crops
from camcli.core.types import FitMode
from camcli.engine.providers.base import ProgressCallback
from camcli.engine.request import Request
from camcli.engine.smoothing import NO_SMOOTHING, Smoothing
from camcli.engine.targets import Target
from camcli.io.transforms import create_ten_crops
from camcli.methods.registry import Method
from camcli.models.model import Model

Precision = Literal["fp32", "bf16"]
MAX_WAITING_IMAGE_BYTES = 2**31  # bytes of pictures that wait


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What to do with every image of a run."""

    model: Model
    requests: tuple[Request, ...]
    target: Target
    fit: FitMode = "squash"
    batch_size: int = 8
    workers: int = 2
    threshold: str | float | None = None
    box_selection: BoxSelection = "largest"
    smoothing: Smoothing = NO_SMOOTHING
    precision: Precision | Literal["auto"] = "fp32"
    is_compiled: bool = False
    report_progress: ProgressCallback = lambda _done, _of: None

    def find_threshold(self, method: Method) -> str | float:
        """The threshold of a method's boxes: as asked, or the checkpoint's, or its own."""
        own = self.model.thresholds.get(method.name, method.threshold)
        return own if self.threshold is None else self.threshold

    @property
    def read_ahead_count(self) -> int:
        """How many images are read before they are needed: a slow file then holds nobody up."""
        return 2 * self.batch_size + self.workers

    @property
    def write_behind_count(self) -> int:
        """How many results wait to be written at most."""
        return len(self.requests) * self.batch_size + self.workers

    @property
    def max_kept_pixels(self) -> int:
        """The pixels of the largest picture that is kept until its maps are there.

        All together then fit into KEPT, however many are under way; a larger one is decoded again.
        """
        return MAX_WAITING_IMAGE_BYTES // (
            3 * (self.read_ahead_count + self.batch_size + self.write_behind_count)
        )

    @property
    def crops(self) -> Crops | None:
        """The several inputs that an image is cut into, if it is."""
        return create_ten_crops(self.model.input_size) if self.fit == "tencrop" else None


@dataclass(slots=True)
class RunState:
    """What a run has found out so far: how many images fit into memory, which precision is taken.

    `precision` is None until a first batch has been measured; `folded` counts batch norms that
    cost nothing; `notes` says what was found.
    """

    max_images_at_once: int
    precision: Precision | None = None
    folded_norm_count: int = 0
    notes: list[str] = field(default_factory=list)

    @classmethod
    def from_config(cls, config: RunConfig) -> RunState:
        """At the start of a run nothing is known but what was asked."""
        return cls(config.batch_size, None if config.precision == "auto" else config.precision)
