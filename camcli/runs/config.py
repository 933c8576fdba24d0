"""What a run does with every image, and what it finds out on the way. Data only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from camcli.core.boxes import Keep
from camcli.core.geometry import Crops
from camcli.core.types import Fit
from camcli.engine.providers.base import Tick
from camcli.engine.request import Request
from camcli.engine.smoothing import NONE, Smoothing
from camcli.engine.targets import Target
from camcli.io import transforms
from camcli.methods.registry import Method
from camcli.models.model import Model

Precision = Literal["fp32", "bf16"]
KEPT = 2**31  # bytes of pictures that wait


@dataclass(frozen=True, slots=True)
class Job:
    """What to do with every image of a run."""

    model: Model
    requests: tuple[Request, ...]
    target: Target
    fit: Fit = "squash"
    batch_size: int = 8
    workers: int = 2
    threshold: str | float | None = None
    keep: Keep = "largest"
    smoothing: Smoothing = NONE
    precision: Precision | Literal["auto"] = "fp32"
    compiled: bool = False
    tick: Tick = lambda _done, _of: None

    def level(self, method: Method) -> str | float:
        """The threshold of a method's boxes: as asked, or the checkpoint's, or its own."""
        own = self.model.thresholds.get(method.name, method.threshold)
        return own if self.threshold is None else self.threshold

    @property
    def ahead(self) -> int:
        """How many images are read before they are needed: a slow file then holds nobody up."""
        return 2 * self.batch_size + self.workers

    @property
    def behind(self) -> int:
        """How many results wait to be written at most."""
        return len(self.requests) * self.batch_size + self.workers

    @property
    def largest(self) -> int:
        """The pixels of the largest picture that is kept until its maps are there.

        All together then fit into KEPT, however many are under way; a larger one is decoded again.
        """
        return KEPT // (3 * (self.ahead + self.batch_size + self.behind))

    @property
    def crops(self) -> Crops | None:
        """The several inputs that an image is cut into, if it is."""
        return transforms.ten_crops(self.model.input_size) if self.fit == "tencrop" else None


@dataclass(slots=True)
class Course:
    """What a run has found out so far: how many images fit into memory, which precision is taken.

    `precision` is None until a first batch has been measured; `folded` counts batch norms that
    cost nothing; `notes` says what was found.
    """

    fits: int
    precision: Precision | None = None
    folded: int = 0
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, job: Job) -> Course:
        """At the start of a run nothing is known but what was asked."""
        return cls(job.batch_size, None if job.precision == "auto" else job.precision)
