"""One training from its settings to its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from camcli.models.model import Model, load_model
from camcli.models.zoo.replace_head import HEAD_ATTACHERS
from camcli.training.checkpointing import (
    TrainingWriter,
    create_training_writer,
    load_resume_state,
)
from camcli.training.data.training_samples import TrainingData
from camcli.training.finetune import TrainingState, train_epochs
from camcli.training.linear_head import fit_linear_head
from camcli.training.soft_labels import create_one_hot_labeler, create_teacher_labeler
from camcli.training.task import AdvanceCallback, EpochResult, TrainingTask
from camcli.training.training_config import TrainingConfig
from camcli.training.validation import check_explainable


@dataclass(frozen=True, slots=True)
class TrainingSession:
    """A training that is ready to start, or to continue from `state`."""

    task: TrainingTask
    writer: TrainingWriter
    state: TrainingState | None = None

    @property
    def image_count(self) -> int:
        """The number of photographs from here to the end, counted once per epoch."""
        data, recipe = self.task.data, self.task.recipe
        rounds = 1 if recipe.head_only else recipe.epochs - len(self.writer.epochs)
        return rounds * (len(data.train) + len(data.validation))

    def run(self, advance: AdvanceCallback) -> Iterator[tuple[EpochResult, bool]]:
        """Train; after each epoch write the files, then yield the epoch and whether it is best."""
        for epoch, state in self._iter_epochs(advance):
            yield epoch, self.writer.write_epoch(epoch, state)

    def _iter_epochs(
        self, advance: AdvanceCallback
    ) -> Iterator[tuple[EpochResult, TrainingState | None]]:
        if self.task.recipe.head_only:
            yield from ((epoch, None) for epoch in fit_linear_head(self.task, advance))
        else:
            yield from train_epochs(self.task, advance, self.state)


def start_training(
    config: TrainingConfig, data: TrainingData, teacher: Model | None = None, *, resume: bool
) -> TrainingSession:
    """Attach the new head, then remove the files of an earlier training or resume from them.

    Raises UsageError for a network that cannot have the head, or that cannot be resumed;
    OutputError if nothing can be written.
    """
    task = create_training_task(config, data, teacher)
    writer = create_training_writer(task, config.output, config.to_settings())
    if resume:
        return TrainingSession(task, writer, load_resume_state(writer))
    writer.remove_old_files()
    return TrainingSession(task, writer)


def create_training_task(
    config: TrainingConfig, data: TrainingData, teacher: Model | None = None
) -> TrainingTask:
    """The network with its new head, the photographs, and the labels or the teacher."""
    kind, recipe = config.head_kind, config.recipe
    model = load_model(
        config.model.name, config.model.checkpoint, size=config.size, device=config.device
    )
    class_count = len(data.labels.names)
    torch.manual_seed(recipe.seed)  # the head's first weights
    network = HEAD_ATTACHERS[kind](model.network, class_count, model.input_size, model.name)
    check_explainable(network, kind, model)
    return TrainingTask(
        head_kind=kind,
        architecture=model.architecture,
        network=network.to(model.device),
        transform=model.transform,
        data=data,
        label_batch=(
            create_teacher_labeler(teacher, model.transform)
            if teacher
            else create_one_hot_labeler(class_count)
        ),
        device=model.device,
        recipe=recipe,
    )
