"""What a training leaves: checkpoints that --model takes, a log, a curve, a way to resume."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from camcli.core.errors import UsageError
from camcli.io.files import write_file
from camcli.models.zoo.checkpoints import has_same_shapes, load_content
from camcli.models.zoo.model_card import ModelCard, serialize_weights
from camcli.training.config import (
    BEST_CHECKPOINT,
    CURVE_FILE,
    LAST_CHECKPOINT,
    LOG_FILE,
    RESUME_FILE,
    TRAINING_FILE_NAMES,
)
from camcli.training.finetune import TrainingState
from camcli.training.plots import draw_training_curve
from camcli.training.task import EpochResult, TrainingTask, ValidationScores
from camcli.training.validation import METHOD_BY_HEAD

TrainingSettings = Mapping[str, Any]
DATA_IDENTITY_KEY, WEIGHTS_IDENTITY_KEY = "photographs or classes", "first weights"


@dataclass(slots=True)
class TrainingWriter:
    """The files of one training in their folder, rewritten whole after every epoch.

    `identity` is what a training must share with one that it goes on from: the settings, and
    digests of photographs, classes and first weights.
    """

    task: TrainingTask
    output: Path
    settings: TrainingSettings
    identity: TrainingSettings
    epochs: list[EpochResult] = field(default_factory=list)
    best_epoch: EpochResult | None = None

    def remove_old_files(self) -> None:
        """Nothing of an earlier training is left. Raises OutputError if nothing can be written."""
        write_file(self.output / LOG_FILE, b"{}")
        for name in TRAINING_FILE_NAMES:
            (self.output / name).unlink(missing_ok=True)

    def write_epoch(self, epoch: EpochResult, state: TrainingState | None = None) -> bool:
        """Take in an epoch and write what it leaves; whether it is the best so far."""
        self.epochs.append(epoch)
        better = self.best_epoch is None or epoch.judged.sort_key > self.best_epoch.judged.sort_key
        packed = self._pack_checkpoint(epoch) if better or state is not None else b""
        if better:
            self.best_epoch = epoch
            write_file(self.output / BEST_CHECKPOINT, packed)
        if state is not None:
            write_file(self.output / LAST_CHECKPOINT, packed)
            write_file(self.output / RESUME_FILE, self._pack_resume_state(state))
        write_file(self.output / LOG_FILE, json.dumps(self.create_log(), indent=2).encode())
        write_file(self.output / CURVE_FILE, draw_training_curve(self.epochs))
        return better

    def _pack_checkpoint(self, epoch: EpochResult) -> bytes:
        lesson = self.task
        at = epoch.judged.threshold if epoch.judged.gt_known else None
        thresholds = {} if at is None else {METHOD_BY_HEAD[lesson.head_kind]: at}
        names = lesson.data.labels.names
        card = ModelCard(lesson.head_kind, lesson.architecture, names, lesson.transform, thresholds)
        return serialize_weights(lesson.network.state_dict(), card)

    def _pack_resume_state(self, state: TrainingState) -> bytes:
        written = io.BytesIO()
        content = {
            "settings": dict(self.identity),
            "log": json.dumps([asdict(e) for e in self.epochs]),
            "epoch": state.epoch,
            "network": dict(state.network_weights),
            "optimizer": dict(state.optimizer_state),
        }
        torch.save(content, written)
        return written.getvalue()

    def create_log(self) -> dict[str, Any]:
        """What training.json says."""
        photos = self.task.data
        return {
            "settings": dict(self.settings),
            "data": {
                "kind": photos.kind,
                "classes": len(photos.labels.names),
                "train": len(photos.train),
                "validation": len(photos.validation),
                "with_boxes": len(
                    {item.annotation.image_name for item in photos.localization_samples}
                ),
                "left_out": len(photos.left_out),
            },
            "best": self.best_epoch.number if self.best_epoch else None,
            "epochs": [_epoch_to_json(epoch) for epoch in self.epochs],
        }


def _epoch_to_json(epoch: EpochResult) -> dict[str, Any]:
    line = {**asdict(epoch), "unreadable": [str(failed) for failed in epoch.failed]}
    del line["failed"]
    return {k: v for k, v in line.items() if v not in (None, (), [])}


def create_training_writer(
    task: TrainingTask, output: Path, settings: TrainingSettings
) -> TrainingWriter:
    """The record of a training whose network still has its first weights."""
    digest = hashlib.sha256()
    for name, tensor in task.network.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    same = {DATA_IDENTITY_KEY: task.data.fingerprint, WEIGHTS_IDENTITY_KEY: digest.hexdigest()}
    return TrainingWriter(task, output, settings, {**settings, **same})


def load_resume_state(writer: TrainingWriter) -> TrainingState:
    """Where an earlier training of the same stopped; the record has its epochs from then on.

    Raises UsageError where there is none, or it was another.
    """
    path = writer.output / RESUME_FILE
    if not path.is_file():
        raise UsageError(f"--resume: {writer.output} holds no training that can go on")
    try:
        said = load_content(path)
        state = TrainingState(int(said["epoch"]), dict(said["network"]), dict(said["optimizer"]))
        epochs = [_epoch_from_json(entry) for entry in json.loads(said["log"])]
        earlier = dict(said["settings"])
        other = [key for key, value in writer.identity.items() if earlier.get(key) != value]
        same = has_same_shapes(writer.task.network, dict(state.network_weights))
        best = max(epochs, key=lambda epoch: epoch.judged.sort_key)
        whole = len(epochs) == state.epoch > 0
    except Exception as error:  # noqa: BLE001 - a broken file leads to whatever it leads to
        raise UsageError(f"--resume: {path} cannot be read ({type(error).__name__})") from None
    if other:
        raise UsageError(
            f"--resume: {writer.output} was trained with {_format_differences(other, earlier)}"
        )
    if not same or not whole:
        raise UsageError(f"--resume: {path} is of another network, or broken")
    writer.epochs, writer.best_epoch = epochs, best
    return state


def _format_differences(keys: Sequence[str], earlier: TrainingSettings) -> str:
    """What was different; digests say nothing to people."""
    digests = (DATA_IDENTITY_KEY, WEIGHTS_IDENTITY_KEY)
    return ", ".join(f"other {k}" if k in digests else f"{k} {earlier.get(k)}" for k in keys)


def _epoch_from_json(said: Mapping[str, Any]) -> EpochResult:
    judged = ValidationScores(
        **{name: _parse_optional_float(value) for name, value in said["judged"].items()}
    )
    return EpochResult(
        int(said["number"]), float(said["loss"]), judged, float(said["seconds"]), (), said["decay"]
    )


def _parse_optional_float(value: Any) -> float | None:
    return None if value is None else float(value)
