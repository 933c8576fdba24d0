"""A model: a frozen network with its transform, class names, layers and attention modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from camcli.core.errors import ModelError, UsageError
from camcli.core.types import Layer, OutputKind, Transform
from camcli.io import labels
from camcli.io.labels import Labels
from camcli.models.forward_errors import raise_model_error
from camcli.models.introspection.attention_modules import AttentionModule, find_attention_modules
from camcli.models.introspection.embeddings import find_embedding
from camcli.models.introspection.gradient_mode import allow_gradients
from camcli.models.introspection.hooks import convert_output
from camcli.models.introspection.layer_detection import find_layers
from camcli.models.introspection.output_choice import describe_output, select_logits
from camcli.models.introspection.outputs import HeadName, find_network_outputs
from camcli.models.introspection.probe import find_channel_count
from camcli.models.introspection.quirks import find_quirks
from camcli.models.introspection.stages import number_layers
from camcli.models.network_copy import copy_network, freeze_network
from camcli.models.zoo.architectures import create_untrained
from camcli.models.zoo.library import join_notes
from camcli.models.zoo.resolve import is_library_name, load_network


@dataclass(frozen=True, slots=True)
class Model:
    """A frozen network in eval mode that returns outputs (B,K), and what camcli knows about it.

    `layers` and `attention_modules` are in forward order. `thresholds` are box thresholds by
    method, from the weights file. `architecture` is the name that creates the network without
    weights. `output_kind` says what the outputs are: logits for a softmax or sigmoid, the values of
    a regression, similarities, or an embedding, which has no class names. `note` says what camcli
    chose where the user did not.
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
    output_kind: OutputKind = "softmax"
    note: str = ""

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the input in pixels."""
        return self.transform.size

    def to_probabilities(self, logits: Tensor) -> Tensor:
        """Probabilities (B,K) of logits (B,K): they sum to 1 under softmax, not under sigmoid.

        Values, similarities and embeddings stay as they are.
        """
        if self.output_kind == "softmax":
            return logits.softmax(dim=1)
        return logits.sigmoid() if self.output_kind in ("sigmoid", "undecided") else logits


@allow_gradients()
def load_model(
    name: str | None = None,
    checkpoint: Path | None = None,
    label_file: Path | None = None,
    size: tuple[int, int] | None = None,
    device: str = "auto",
    pretrained: bool = True,
    head: HeadName | None = None,
    transform_overrides: Mapping[str, Any] | None = None,
    logits: str | None = None,
    class_count: int | None = None,
) -> Model:
    """Load a model by name or from a checkpoint file; without either, the built-in default.

    `pretrained=False` gives random weights, to list layers without a download.
    `transform_overrides` replaces fields of the model's transform. `logits` names the logits where
    the network returns several tensors; otherwise `class_count` or the number of class names may
    tell them. Raises ModelError, CheckpointError, LabelsError or UsageError; each message says what
    to do.
    """
    target_device = choose_device(device)
    if name is not None and not pretrained and is_library_name(name):
        loaded = create_untrained(name, size)
    else:
        loaded = load_network(name, checkpoint, size)
    model = wrap_network(
        loaded.name,
        loaded.network,
        loaded.transform,
        label_file,
        target_device,
        copy=False,  # nobody else has this network
        logits=logits,
        class_count=class_count or _count_class_names(label_file, loaded.class_names),
        head=head or loaded.output_kind,
    )
    transform = override_transform(model.transform, transform_overrides or {})
    class_names = loaded.class_names or ()
    is_given = {"mean", "std"} <= (transform_overrides or {}).keys()
    # The note on channels has the mean and std of a network that takes another number than three.
    is_told = is_given or transform.channel_count != 3
    normalization_note = "" if is_told else loaded.normalization_note
    has_class_names = not label_file and len(class_names) == len(model.labels.names) > 0
    if has_class_names:
        model = set_class_names(model, labels.create_labels(class_names))
    return replace(
        model,
        thresholds=loaded.thresholds,
        architecture=loaded.architecture or loaded.name,
        note=join_notes(loaded.note, normalization_note, model.note, _describe_channels(transform)),
        transform=transform,
    )


def set_class_names(model: Model, class_labels: Labels) -> Model:
    """The model with these class names; two names tell that a single output is a class."""
    is_decided = model.output_kind == "undecided"
    kind: OutputKind = "sigmoid" if is_decided else model.output_kind
    return replace(model, labels=class_labels, output_kind=kind)


@allow_gradients()
def wrap_network(
    name: str,
    network: nn.Module,
    transform: Transform,
    label_file: Path | None = None,
    device: torch.device | None = None,
    *,
    copy: bool = True,
    logits: str | None = None,
    class_count: int | None = None,
    head: HeadName | OutputKind | None = None,
) -> Model:
    """Make a Model of any network: find its layers, its attention and the names of its classes.

    camcli works on a frozen copy that shares the weights, so `network` does not change; wrap it
    again after training. With `copy=False` camcli freezes and changes `network` itself. The
    Model's network returns outputs (B,K), whatever the forward pass of `network` returns: see
    `find_network_outputs`, which reads `head`. A network of another number of channels than those
    of `transform` gets the average of mean and std in each. Raises ModelError if the network
    returns nothing of that kind, cannot be copied or does not run on an input of the transform's
    size; LabelsError and UsageError for names or a head that do not fit.
    """
    network = getattr(network, "_orig_mod", network)  # torch.compile ignores hooks that come later
    device = device or torch.device("cpu")
    with raise_model_error(name, network, transform.size):
        if copy:
            network = copy_network(name, network, device)
        else:
            freeze_network(network, device)
        transform = transform.with_channels(find_channel_count(network, transform.size))
        quirks = find_quirks(network)
        layers, output = find_layers(network, quirks, transform.size)
        choice_note = ""
        if head != "embedding" or logits or find_embedding(output) is None:
            output, choice_note = select_logits(name, network, output, logits, class_count)
        found = find_network_outputs(network, output, transform.size, head)
    if found is None:
        raise ModelError(
            f"{name} is not a classifier: it does not return logits of shape (B, K), but "
            f"{describe_output(output)}"
        )
    converted = found.convert(output)
    if converted is not output:
        convert_output(network, found.convert)
    class_count = 0 if found.kind == "embedding" else converted.shape[1]
    layers = number_layers(network, quirks, layers, class_count)
    model = Model(
        name=name,
        network=network,
        transform=transform,
        labels=_create_labels(found.kind, class_count),
        layers=layers,
        attention_modules=find_attention_modules(network, quirks, layers, transform.size),
        device=device,
        output_kind=found.kind,
        note=join_notes(choice_note, f"{name}: {found.note}" if found.note else ""),
    )
    if label_file:
        return set_class_names(model, labels.load_labels(label_file, class_count))
    return model


def _count_class_names(label_file: Path | None, class_names: Sequence[str] | None) -> int | None:
    """The number of class names in a file, or else that the weights bring; None without names."""
    names = labels.load_labels(label_file, None).names if label_file else class_names
    return len(names) if names else None


def override_transform(transform: Transform, values: Mapping[str, Any]) -> Transform:
    """The transform with other values; one number of mean or std is for all channels.

    Raises UsageError for another number of numbers than the network has channels.
    """
    count = transform.channel_count
    for key in ("mean", "std"):
        if len(values.get(key, ())) not in (0, 1, count):
            raise UsageError(
                f"--{key} has {len(values[key])} numbers, but the network takes {count} "
                f"channel{'s' * (count != 1)}; give one number for each, or one for all"
            )
    return replace(transform, **values).with_channels(count)


def _describe_channels(transform: Transform) -> str:
    """What the user must know about a network that does not take RGB."""
    count = transform.channel_count
    if count == 3:
        return ""
    images = (
        "1 channel: images are read as grey"
        if count == 1
        else f"{count} channels: images are .npy files or TIFFs of {count} bands"
    )
    mean, std = (f"{values[0]:.4g}" for values in (transform.mean, transform.std))
    return f"the network takes {images}; --mean and --std set the normalisation (now {mean}, {std})"


def _create_labels(kind: OutputKind, class_count: int) -> Labels:
    if kind == "regression":
        return labels.create_labels(
            ["y"] if class_count == 1 else [f"y{n}" for n in range(class_count)]
        )
    return labels.create_default_labels(class_count)


def choose_device(spec: str) -> torch.device:
    """The device that `--device` names; `auto` is CUDA, else MPS, else CPU.

    Raises UsageError for another word, or a device that this machine does not have.
    """
    counts = {
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    if spec == "auto":
        return torch.device(next(kind for kind, count in counts.items() if count))
    try:
        device = torch.device(spec)
    except RuntimeError:
        raise UsageError(f"--device {spec}: use auto, cpu, cuda, cuda:N or mps") from None
    if (device.index or 0) >= counts.get(device.type, 0):
        raise UsageError(f"--device {spec}: this machine has no such device; try --device auto")
    return device
