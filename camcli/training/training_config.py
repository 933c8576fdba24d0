"""The settings of a training and the names of its files. Imports no torch, so that it is quick."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from camcli.evaluation.datasets.reader import DatasetPaths
    from camcli.models.zoo.model_card import HeadKind

HEAD_WEIGHT_DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)  # tried for a head alone; validation chooses one

BEST_CHECKPOINT, LAST_CHECKPOINT = "model_best.safetensors", "model_last.safetensors"
LOG_FILE, CURVE_FILE, RESUME_FILE = "training.json", "curve.png", "resume.pt"
TRAINING_FILE_NAMES = (LOG_FILE, BEST_CHECKPOINT, LAST_CHECKPOINT, CURVE_FILE, RESUME_FILE)

JsonValue = int | float | str | None


@dataclass(frozen=True, slots=True)
class Recipe:
    """The numbers of a training. The defaults are TS-CAM's on CUB-200-2011.

    `head_only` fits the head by logistic regression. Otherwise the last `last` blocks, the norm and
    the head are trained, or the whole network if `last` is None. The learning rate falls to a tenth
    after half of the epochs. `decay` None means 5e-4 for AdamW, and the best of
    HEAD_WEIGHT_DECAYS for a head alone.
    """

    epochs: int = 60
    batch_size: int = 128
    lr: float = 5e-5
    decay: float | None = None
    precision: str = "fp32"
    seed: int = 26
    workers: int = 2
    last: int | None = None
    head_only: bool = False

    @property
    def part(self) -> str:
        """The part of the network that is trained, as `--train` names it."""
        if self.head_only:
            return "head"
        return "all" if self.last is None else f"last:{self.last}"


TSCAM_CUB_RECIPE = Recipe()


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model by its name, by a weights file, or by both; without either, the built-in one."""

    name: str | None = None
    checkpoint: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Which head to fit to which network, on which data."""

    head_kind: HeadKind
    model: ModelChoice
    teacher: ModelChoice | None
    data: DatasetPaths
    boxes: Path | None
    validation_share: float
    labels: Path | None
    size: tuple[int, int] | None
    device: str
    output: Path
    recipe: Recipe

    def to_settings(self) -> dict[str, JsonValue]:
        """All that decides the result; a training resumes only with the same settings."""
        teacher = self.teacher or ModelChoice()
        settings = {
            "kind": self.head_kind,
            "data": self.data.root,
            "model": self.model.name,
            "checkpoint": self.model.checkpoint,
            "teacher": teacher.name,
            "teacher_checkpoint": teacher.checkpoint,
            "images": self.data.images,
            "boxes": self.boxes,
            "labels": self.labels,
            "share": self.validation_share,
            "size": self.size,
            "part": self.recipe.part,
            **asdict(self.recipe),
        }
        for name in ("workers", "head_only"):  # `part` includes `head_only`
            del settings[name]
        return {name: _to_json_value(value) for name, value in settings.items()}


def _to_json_value(value: object) -> JsonValue:
    return value if isinstance(value, int | float | str | None) else str(value)
