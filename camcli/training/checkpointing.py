"""The files of a training: checkpoints for --model, a log, a curve, and the state to resume."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from camcli.core.errors import UsageError
from camcli.io.files import write_file
from camcli.models.zoo.checkpoints import has_same_shapes, load_content
from camcli.models.zoo.model_card import ModelCard, serialize_weights
from camcli.training.finetune import TrainingState
from camcli.training.task import EpochResult, TrainingTask, ValidationScores
from camcli.training.training_config import (
    BEST_CHECKPOINT,
    CURVE_FILE,
    LAST_CHECKPOINT,
    LOG_FILE,
    RESUME_FILE,
    TRAINING_FILE_NAMES,
)
from camcli.training.training_curve import draw_training_curve
from camcli.training.validation import METHOD_BY_HEAD

TrainingSettings = Mapping[str, Any]
DATA_IDENTITY_KEY, WEIGHTS_IDENTITY_KEY = "photographs or classes", "first weights"


@dataclass(slots=True)
class TrainingWriter:
    """Writes the files of one training into their folder, all of them after every epoch.

    `identity` must be the same for a training to resume: the settings, and digests of photographs,
    classes and first weights.
    """

    task: TrainingTask
    output: Path
    settings: TrainingSettings
    identity: TrainingSettings
    epochs: list[EpochResult] = field(default_factory=list)
    best_epoch: EpochResult | None = None

    def remove_old_files(self) -> None:
        """Remove the files of an earlier training. Raises OutputError if nothing can be written."""
        write_file(self.output / LOG_FILE, b"{}")  # a folder that is not writable fails here
        for name in TRAINING_FILE_NAMES:
            (self.output / name).unlink(missing_ok=True)

    def write_epoch(self, epoch: EpochResult, state: TrainingState | None = None) -> bool:
        """Add an epoch and write the files; returns whether it is the best so far."""
        self.epochs.append(epoch)
        better = self.best_epoch is None or epoch.scores.sort_key > self.best_epoch.scores.sort_key
        checkpoint = self._pack_checkpoint(epoch) if better or state is not None else b""
        if better:
            self.best_epoch = epoch
            write_file(self.output / BEST_CHECKPOINT, checkpoint)
        if state is not None:
            write_file(self.output / LAST_CHECKPOINT, checkpoint)
            write_file(self.output / RESUME_FILE, self._pack_resume_state(state))
        write_file(self.output / LOG_FILE, json.dumps(self.create_log(), indent=2).encode())
        write_file(self.output / CURVE_FILE, draw_training_curve(self.epochs))
        return better

    def _pack_checkpoint(self, epoch: EpochResult) -> bytes:
        task, scores = self.task, epoch.scores
        thresholds: dict[str, float] = {}
        if scores.gt_known and scores.threshold is not None:
            thresholds[METHOD_BY_HEAD[task.head_kind]] = scores.threshold
        card = ModelCard(
            head=task.head_kind,
            model=task.architecture,
            classes=task.data.labels.names,
            transform=task.transform,
            thresholds=thresholds,
        )
        return serialize_weights(task.network.state_dict(), card)

    def _pack_resume_state(self, state: TrainingState) -> bytes:
        content = {
            "settings": dict(self.identity),
            "log": json.dumps([_epoch_to_json(epoch) for epoch in self.epochs]),
            "epoch": state.epoch,
            "network": dict(state.network_weights),
            "optimizer": dict(state.optimizer_state),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return buffer.getvalue()

    def create_log(self) -> dict[str, Any]:
        """The content of training.json."""
        data = self.task.data
        boxed = {sample.annotation.image_name for sample in data.localization_samples}
        return {
            "settings": dict(self.settings),
            "data": {
                "kind": data.kind,
                "classes": len(data.labels.names),
                "train": len(data.train),
                "validation": len(data.validation),
                "with_boxes": len(boxed),
                "left_out": len(data.left_out),
            },
            "best": self.best_epoch.number if self.best_epoch else None,
            "epochs": [_epoch_to_json(epoch) for epoch in self.epochs],
        }


def create_training_writer(
    task: TrainingTask, output: Path, settings: TrainingSettings
) -> TrainingWriter:
    """The writer of a training whose network still has its first weights."""
    identity = {
        **settings,
        DATA_IDENTITY_KEY: task.data.fingerprint,
        WEIGHTS_IDENTITY_KEY: _hash_weights(task.network),
    }
    return TrainingWriter(task, output, settings, identity)


def _hash_weights(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def load_resume_state(writer: TrainingWriter) -> TrainingState:
    """The state in which the same training stopped earlier; the writer gets its epochs.

    Raises UsageError if the folder has no such state, or the state of another training.
    """
    path = writer.output / RESUME_FILE
    if not path.is_file():
        raise UsageError(
            f"--resume: {writer.output} holds no training to resume; start without --resume"
        )
    try:
        content = load_content(path)
        state, epochs = _parse_resume_state(content)
        settings = dict(content["settings"])
        different = [key for key, value in writer.identity.items() if settings.get(key) != value]
        best = max(epochs, key=lambda epoch: epoch.scores.sort_key)
        fits = has_same_shapes(writer.task.network, dict(state.network_weights))
        complete = len(epochs) == state.epoch > 0
    except Exception as error:  # noqa: BLE001 - a broken file can raise anything
        raise UsageError(
            f"--resume: {path} cannot be read ({type(error).__name__}); "
            "start again with --overwrite"
        ) from None
    if different:
        raise UsageError(
            f"--resume: {writer.output} was trained with {_format_settings(different, settings)}; "
            "use the same settings, or start again with --overwrite"
        )
    if not (fits and complete):
        raise UsageError(
            f"--resume: {path} is broken or belongs to another network; "
            "start again with --overwrite"
        )
    writer.epochs, writer.best_epoch = epochs, best
    return state


def _parse_resume_state(content: Any) -> tuple[TrainingState, list[EpochResult]]:
    state = TrainingState(
        int(content["epoch"]), dict(content["network"]), dict(content["optimizer"])
    )
    return state, [_epoch_from_json(entry) for entry in json.loads(content["log"])]


def _format_settings(keys: Sequence[str], settings: TrainingSettings) -> str:
    """Format the earlier values; digests only by name, because people cannot read them."""
    digests = (DATA_IDENTITY_KEY, WEIGHTS_IDENTITY_KEY)
    return ", ".join(f"other {k}" if k in digests else f"{k} {settings.get(k)}" for k in keys)


def _epoch_to_json(epoch: EpochResult) -> dict[str, Any]:
    """Convert an epoch to JSON, without the fields that it does not have."""
    entry = {
        "number": epoch.number,
        "loss": epoch.loss,
        "judged": asdict(epoch.scores),
        "seconds": epoch.seconds,
        "decay": epoch.decay,
        "losses": epoch.losses,
        "unreadable": [str(failure) for failure in epoch.failed],
    }
    return {key: value for key, value in entry.items() if value not in (None, (), [])}


def _epoch_from_json(entry: Mapping[str, Any]) -> EpochResult:
    scores = {name: _parse_optional_float(value) for name, value in entry["judged"].items()}
    return EpochResult(
        number=int(entry["number"]),
        loss=float(entry["loss"]),
        scores=ValidationScores(**scores),
        seconds=float(entry["seconds"]),
        decay=entry.get("decay"),
    )


def _parse_optional_float(value: Any) -> float | None:
    return None if value is None else float(value)
