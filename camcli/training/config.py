"""The numbers of a training, and the names of its files. Data only, and no torch."""

from __future__ import annotations

from dataclasses import dataclass

HEAD_WEIGHT_DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)  # of a head alone: the best on validation is taken


@dataclass(frozen=True, slots=True)
class Recipe:
    """The numbers of a training. Defaults are TS-CAM's on CUB-200-2011.

    `last` blocks are trained besides norm and head; None for all of the network. The learning rate
    falls to a tenth after half of the epochs. `decay` None: AdamW's is 5e-4, a head's is chosen.
    """

    epochs: int = 60
    batch_size: int = 128
    lr: float = 5e-5
    decay: float | None = None
    precision: str = "fp32"
    seed: int = 26
    workers: int = 2
    last: int | None = None


TSCAM_CUB_RECIPE = Recipe()

BEST_CHECKPOINT, LAST_CHECKPOINT = "model_best.safetensors", "model_last.safetensors"
LOG_FILE, CURVE_FILE, RESUME_FILE = "training.json", "curve.png", "resume.pt"
TRAINING_FILE_NAMES = (LOG_FILE, BEST_CHECKPOINT, LAST_CHECKPOINT, CURVE_FILE, RESUME_FILE)
