"""A frozen network with its transform, labels and layers: what the rest of camcli calls a model.

Knows nothing of methods or of the files that a run writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from camcli.core.errors import ModelError, UsageError
from camcli.core.types import Layer, Transform
from camcli.io import labels
from camcli.io.labels import Labels
from camcli.models.introspection.attention import AttentionModule, find_attention_modules
from camcli.models.introspection.layers import find_layers
from camcli.models.introspection.logits import adapt_forward, find_logits, to_two_class_logits
from camcli.models.introspection.quirks import find_quirks
from camcli.models.introspection.stages import number_layers
from camcli.models.zoo.architectures import create_untrained, has_no_classifier
from camcli.models.zoo.resolve import is_library_name, load_network

OutputActivation = Literal["softmax", "sigmoid"]


@dataclass(frozen=True, slots=True)
class Model:
    """A frozen network in eval mode and what is known of it; its parts in forward order.

    `thresholds` are box thresholds that its file brings, by method; `architecture` is the name of
    its bare structure; `head` says what makes probabilities of logits; `note` what was chosen where
    nobody did.
    """

    name: str
    network: nn.Module
    transform: Transform
    labels: Labels
    layers: tuple[Layer, ...]
    attention_modules: tuple[AttentionModule, ...]
    device: torch.device
    thresholds: Mapping[str, float] = field(default_factory=dict)
    architecture: str = ""
    output_activation: OutputActivation = "softmax"
    note: str = ""

    @property
    def input_size(self) -> tuple[int, int]:
        """The input's height and width in pixels."""
        return self.transform.size

    def to_probabilities(self, logits: Tensor) -> Tensor:
        """(B,K) -> (B,K): of one class among all, or of each by itself."""
        return logits.softmax(dim=1) if self.output_activation == "softmax" else logits.sigmoid()


def load_model(
    name: str | None = None,
    checkpoint: Path | None = None,
    label_file: Path | None = None,
    size: tuple[int, int] | None = None,
    device: str = "auto",
    pretrained: bool = True,
    output_activation: OutputActivation | None = None,
    transform_overrides: Mapping[str, Any] | None = None,
) -> Model:
    """A model by name, from a checkpoint file, or the embedded default.

    Without `weights` a name gives the bare architecture, for a look at its layers; `transform` has
    what of the model's own is not to be used. Raises ModelError, CheckpointError, LabelsError or
    UsageError, each with what to do.
    """
    where = choose_device(device)
    bare = name is not None and not pretrained and is_library_name(name)
    built = create_untrained(str(name), size) if bare else load_network(name, checkpoint, size)
    wanted = replace(built.transform, **transform_overrides or {})
    model = wrap_network(built.name, built.network, wanted, label_file, where)
    own = (
        built.class_names
        if built.class_names and len(built.class_names) == len(model.labels.names)
        else None
    )
    return replace(
        model,
        labels=labels.create_labels(own) if own and not label_file else model.labels,
        thresholds=built.thresholds,
        architecture=built.architecture or built.name,
        output_activation=output_activation or model.output_activation,
        note=built.note,
    )


def wrap_network(
    name: str,
    network: nn.Module,
    transform: Transform,
    label_file: Path | None = None,
    device: torch.device | None = None,
) -> Model:
    """Freeze any classifier, measure its layers, and name its classes.

    Whatever it answers with is made logits (B,K); one logit is that of "yes", beside its negative.
    """
    where = device or torch.device("cpu")
    try:
        network.requires_grad_(False).eval().to(where)
        if where.type == "cpu":  # there up to twice as fast so; the numbers are the same
            network.to(memory_format=torch.channels_last)
        _check_has_classifier(name, network)
        family = find_quirks(network)
        found, answer = find_layers(network, family, transform.size)
        logits = find_logits(answer)
        single = logits is not None and logits.shape[1] == 1
        if logits is not None and (logits is not answer or single):
            network, logits = adapt_forward(network), to_two_class_logits(logits)
    except ModelError:
        raise
    except (Exception, SystemExit) as error:  # the code of a network may be a user's own
        wanted = "x".join(map(str, transform.size))
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ModelError(f"{name} does not run on a {wanted} input: {reason}") from error
    if logits is None:
        raise ModelError(f"{name} is no classifier: it does not yield (B, K) logits")
    classes = logits.shape[1]
    found = number_layers(network, family, found, classes)
    matrices = find_attention_modules(network, family, found, transform.size)
    names = (
        labels.load_labels(label_file, classes)
        if label_file
        else labels.create_default_labels(classes)
    )
    head: OutputActivation = "sigmoid" if single else "softmax"
    return Model(name, network, transform, names, found, matrices, where, output_activation=head)


def _check_has_classifier(name: str, network: nn.Module) -> None:
    if has_no_classifier(network):
        raise ModelError(
            f"{name} has no classifier, so there is no class to explain; give weights that have "
            f"one: --model {name} --checkpoint FILE"
        )


def choose_device(spec: str) -> torch.device:
    """The device that `--device` names; `auto` is CUDA, else MPS, else CPU. Raises UsageError."""
    count = {
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    if spec == "auto":
        return torch.device(next(kind for kind, number in count.items() if number))
    try:
        device = torch.device(spec)
    except RuntimeError:
        raise UsageError(f"--device {spec}: write auto, cpu, cuda, cuda:N or mps") from None
    if (device.index or 0) >= count.get(device.type, 0):
        raise UsageError(f"--device {spec}: this machine has no such device")
    return device
