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
from camcli.models.introspection.logits import find_logits, return_logits
from camcli.models.introspection.quirks import find_quirks
from camcli.models.introspection.stages import number_layers
from camcli.models.network_copy import copy_network, freeze_network
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
    model = wrap_network(built.name, built.network, wanted, label_file, where, copy=False)
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
    *,
    copy: bool = True,
) -> Model:
    """Make a Model of any classifier: find its layers, its attention and the names of its classes.

    camcli works on a frozen copy that shares the weights, so `network` does not change; wrap it
    again after training. With `copy=False` camcli freezes and changes `network` itself. The
    Model's network returns logits (B,K), whatever the forward pass of `network` returns; a single
    logit z becomes the two logits (-z, z). Raises ModelError if the network is not a classifier,
    cannot be copied or does not run on an input of the transform's size, and LabelsError.
    """
    where = device or torch.device("cpu")
    try:
        if copy:
            network = copy_network(name, network, where)
        else:
            freeze_network(network, where)
        _check_has_classifier(name, network)
        quirks = find_quirks(network)
        layers, output = find_layers(network, quirks, transform.size)
        logits = find_logits(output)
    except ModelError:
        raise
    except (Exception, SystemExit) as error:  # the code of a network may be a user's own
        wanted = "x".join(map(str, transform.size))
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ModelError(f"{name} does not run on a {wanted} input: {reason}") from error
    if logits is None:
        raise ModelError(f"{name} is not a classifier: it does not return logits of shape (B, K)")
    single = logits.shape[1] == 1
    if single or logits is not output:
        return_logits(network)
    class_count = 2 if single else logits.shape[1]
    layers = number_layers(network, quirks, layers, class_count)
    return Model(
        name,
        network,
        transform,
        _load_class_names(label_file, class_count),
        layers,
        find_attention_modules(network, quirks, layers, transform.size),
        where,
        output_activation="sigmoid" if single else "softmax",
    )


def _load_class_names(label_file: Path | None, class_count: int) -> Labels:
    if label_file:
        return labels.load_labels(label_file, class_count)
    return labels.create_default_labels(class_count)


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
