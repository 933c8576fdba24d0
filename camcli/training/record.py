"""What a training leaves: checkpoints that --model takes, a log, a curve, a way to resume."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from camcli import checkpoints, trained
from camcli.errors import UsageError
from camcli.outputs import write
from camcli.training.curve import curve
from camcli.training.epochs import State
from camcli.training.judge import METHOD
from camcli.training.lesson import Epoch, Judged, Lesson

BEST, LAST = "model_best.safetensors", "model_last.safetensors"
LOG, CURVE, RESUME = "training.json", "curve.png", "resume.pt"

Settings = Mapping[str, Any]


@dataclass(slots=True)
class Record:
    """The files of one training in their folder, rewritten whole after every epoch."""

    lesson: Lesson
    output: Path
    settings: Settings
    epochs: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None

    def add(self, epoch: Epoch, state: State | None = None) -> bool:
        """Take in an epoch and write what it leaves; whether it is the best so far."""
        self.epochs.append(epoch)
        better = self.best is None or epoch.judged.order > self.best.judged.order
        if better:
            self.best = epoch
            write(self.output / BEST, self._packed(epoch))
        if state is not None:
            write(self.output / LAST, self._packed(epoch))
            write(self.output / RESUME, self._resumable(state))
        write(self.output / LOG, json.dumps(self.log(), indent=2).encode())
        write(self.output / CURVE, curve(self.epochs))
        return better

    def recall(self, epochs: Sequence[Epoch]) -> None:
        """Take in the epochs of a training that goes on; their files are there."""
        self.epochs = list(epochs)
        self.best = max(epochs, key=lambda epoch: epoch.judged.order, default=None)

    def _packed(self, epoch: Epoch) -> bytes:
        lesson = self.lesson
        at = epoch.judged.threshold
        thresholds = {} if at is None else {METHOD[lesson.kind]: at}
        names = lesson.photos.labels.names
        card = trained.Card(lesson.kind, lesson.name, names, lesson.transform, thresholds)
        return trained.pack(lesson.network.state_dict(), card)

    def _resumable(self, state: State) -> bytes:
        written = io.BytesIO()
        content = {
            "settings": dict(self.settings),
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
    line = asdict(epoch)
    line["unreadable"] = [f"{f['name']}: {f['reason']}" for f in line.pop("failed")]
    return {k: v for k, v in line.items() if v not in (None, (), [])}


def resume(lesson: Lesson, output: Path, settings: Settings) -> tuple[State, list[Epoch]]:
    """Where an earlier training with the same settings stopped, and its epochs.

    Raises UsageError where there is none, or it was another.
    """
    path = output / RESUME
    if not path.is_file():
        raise UsageError(f"--resume: {output} holds no training that can go on")
    try:
        with torch.serialization.safe_globals(checkpoints.HARMLESS):
            said = torch.load(path, map_location="cpu", weights_only=True)
        earlier = said["settings"]
        epochs = [_epoch(entry) for entry in json.loads(said["log"])]
        state = State(int(said["epoch"]), dict(said["network"]), dict(said["optimizer"]))
    except Exception as error:  # noqa: BLE001 - a broken file leads to whatever it leads to
        raise UsageError(f"--resume: {path} cannot be read ({type(error).__name__})") from None
    other = [f"{k} {earlier.get(k)}" for k, v in settings.items() if earlier.get(k) != v]
    if other:
        raise UsageError(f"--resume: {output} was trained with {', '.join(other)}")
    if not checkpoints.fits(lesson.network, dict(state.network)):
        raise UsageError(f"--resume: {path} has the weights of another network")
    return state, epochs


def _epoch(said: Mapping[str, Any]) -> Epoch:
    judged = Judged(**said["judged"])
    return Epoch(**{**said, "judged": judged, "failed": (), "losses": tuple(said["losses"])})
