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
from camcli.io.files import write
from camcli.models.zoo import checkpoints
from camcli.models.zoo import model_card as trained
from camcli.training.config import BEST, CURVE, FILES, LAST, LOG, RESUME
from camcli.training.finetune import State
from camcli.training.plots import curve
from camcli.training.task import Epoch, Judged, Lesson
from camcli.training.validation import METHOD

Settings = Mapping[str, Any]
DATA, START = "photographs or classes", "first weights"


@dataclass(slots=True)
class Record:
    """The files of one training in their folder, rewritten whole after every epoch.

    `identity` is what a training must share with one that it goes on from: the settings, and
    digests of photographs, classes and first weights.
    """

    lesson: Lesson
    output: Path
    settings: Settings
    identity: Settings
    epochs: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None

    def begin(self) -> None:
        """Nothing of an earlier training is left. Raises OutputError if nothing can be written."""
        write(self.output / LOG, b"{}")
        for name in FILES:
            (self.output / name).unlink(missing_ok=True)

    def add(self, epoch: Epoch, state: State | None = None) -> bool:
        """Take in an epoch and write what it leaves; whether it is the best so far."""
        self.epochs.append(epoch)
        better = self.best is None or epoch.judged.order > self.best.judged.order
        packed = self._packed(epoch) if better or state is not None else b""
        if better:
            self.best = epoch
            write(self.output / BEST, packed)
        if state is not None:
            write(self.output / LAST, packed)
            write(self.output / RESUME, self._resumable(state))
        write(self.output / LOG, json.dumps(self.log(), indent=2).encode())
        write(self.output / CURVE, curve(self.epochs))
        return better

    def _packed(self, epoch: Epoch) -> bytes:
        lesson = self.lesson
        at = epoch.judged.threshold if epoch.judged.gt_known else None
        thresholds = {} if at is None else {METHOD[lesson.kind]: at}
        names = lesson.photos.labels.names
        card = trained.Card(lesson.kind, lesson.name, names, lesson.transform, thresholds)
        return trained.pack(lesson.network.state_dict(), card)

    def _resumable(self, state: State) -> bytes:
        written = io.BytesIO()
        content = {
            "settings": dict(self.identity),
            "log": json.dumps([asdict(e) for e in self.epochs]),
            "epoch": state.epoch,
            "network": dict(state.network),
            "optimizer": dict(state.optimizer),
        }
        torch.save(content, written)
        return written.getvalue()

    def log(self) -> dict[str, Any]:
        """What training.json says."""
        photos = self.lesson.photos
        return {
            "settings": dict(self.settings),
            "data": {
                "kind": photos.kind,
                "classes": len(photos.labels.names),
                "train": len(photos.train),
                "validation": len(photos.validation),
                "with_boxes": len({item.truth.image for item in photos.truths}),
                "left_out": len(photos.left_out),
            },
            "best": self.best.number if self.best else None,
            "epochs": [_line(epoch) for epoch in self.epochs],
        }


def _line(epoch: Epoch) -> dict[str, Any]:
    line = {**asdict(epoch), "unreadable": [str(failed) for failed in epoch.failed]}
    del line["failed"]
    return {k: v for k, v in line.items() if v not in (None, (), [])}


def record(lesson: Lesson, output: Path, settings: Settings) -> Record:
    """The record of a training whose network still has its first weights."""
    digest = hashlib.sha256()
    for name, tensor in lesson.network.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    same = {DATA: lesson.photos.fingerprint, START: digest.hexdigest()}
    return Record(lesson, output, settings, {**settings, **same})


def resume(record: Record) -> State:
    """Where an earlier training of the same stopped; the record has its epochs from then on.

    Raises UsageError where there is none, or it was another.
    """
    path = record.output / RESUME
    if not path.is_file():
        raise UsageError(f"--resume: {record.output} holds no training that can go on")
    try:
        said = checkpoints.load(path)
        state = State(int(said["epoch"]), dict(said["network"]), dict(said["optimizer"]))
        epochs = [_epoch(entry) for entry in json.loads(said["log"])]
        earlier = dict(said["settings"])
        other = [key for key, value in record.identity.items() if earlier.get(key) != value]
        same = checkpoints.fits(record.lesson.network, dict(state.network))
        best = max(epochs, key=lambda epoch: epoch.judged.order)
        whole = len(epochs) == state.epoch > 0
    except Exception as error:  # noqa: BLE001 - a broken file leads to whatever it leads to
        raise UsageError(f"--resume: {path} cannot be read ({type(error).__name__})") from None
    if other:
        raise UsageError(f"--resume: {record.output} was trained with {_told(other, earlier)}")
    if not same or not whole:
        raise UsageError(f"--resume: {path} is of another network, or broken")
    record.epochs, record.best = epochs, best
    return state


def _told(keys: Sequence[str], earlier: Settings) -> str:
    """What was different; digests say nothing to people."""
    digests = (DATA, START)
    return ", ".join(f"other {k}" if k in digests else f"{k} {earlier.get(k)}" for k in keys)


def _epoch(said: Mapping[str, Any]) -> Epoch:
    judged = Judged(**{name: _number(value) for name, value in said["judged"].items()})
    return Epoch(
        int(said["number"]), float(said["loss"]), judged, float(said["seconds"]), (), said["decay"]
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
