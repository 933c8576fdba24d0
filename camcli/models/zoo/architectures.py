"""Networks by the names that timm and torchvision have for them, still without their weights.

Knows nothing of files of weights, methods, layers or labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.config import resolve_data_config
from torch import nn

from camcli.core.errors import ModelError, format_suggestion
from camcli.core.types import Transform
from camcli.models.zoo.builtin import (
    BUILTIN_CNN,
    BUILTIN_NAMES,
    BUILTIN_TSCAM,
    load_builtin_cnn,
    load_builtin_vit,
    read_builtin_card,
)

InputSize = tuple[int, int] | None
TORCHVISION_PREFIX = "torchvision:"
HUB_PREFIXES = ("hf-hub:", "hf_hub:")
WEIGHT_OPTIONS = (
    "pretrained",
    "weights",
    "progress",
)  # what brings weights, of which a sketch has none
BUILD_ERRORS = (AssertionError, TypeError, RuntimeError, ValueError)  # what is raised for bad sizes
ARCHITECTURES_WITH_AUX = {"inception_v3", "googlenet"}


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """A network with its weights, its transform, and what its file says of classes and boxes.

    `architecture` is the name under which its bare structure can be had again, by `blank`; `note`
    says what was chosen where the user did not.
    """

    name: str
    network: nn.Module
    transform: Transform
    class_names: tuple[str, ...] | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    architecture: str | None = None
    note: str = ""


def create_untrained(name: str, size: InputSize) -> LoadedNetwork:
    """A network with random weights: its structure only. Those that ship have theirs."""
    if name in BUILTIN_NAMES:
        return load_builtin(name, size)
    check_model_name(name)
    try:
        network = randomize_zero_weights(create_network(name, size))
    except OSError as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"what {name} is cannot be asked: {reason}") from None
    return LoadedNetwork(name, network, find_transform(name, network, size))


def randomize_zero_weights(network: nn.Module) -> nn.Module:
    """Other numbers for what starts at zero, as classifiers and scales may: they hide the rest."""
    for name, parameter in network.named_parameters():
        if not parameter.any() and parameter.ndim > 1:
            nn.init.trunc_normal_(parameter, std=0.02)
        elif not parameter.any() and "bias" not in name.rpartition(".")[2]:
            nn.init.ones_(parameter)
    return network


def check_model_name(name: str) -> None:
    """Raises ModelError, with near matches, for a name that neither library has."""
    if name.startswith(TORCHVISION_PREFIX):
        _check_torchvision_name(name.removeprefix(TORCHVISION_PREFIX))
    elif not name.startswith(HUB_PREFIXES):
        _check_timm_name(name)


def _check_timm_name(name: str) -> None:
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = format_suggestion(architecture, timm.list_models())
        raise ModelError(f"no model {name!r} in timm{near} (`camcli models` lists them)")
    tags = timm.list_pretrained(f"{architecture}.*")
    if "." in name and name not in tags:
        raise ModelError(f"{architecture} has no weights of that tag; it has {', '.join(tags)}")


def _check_torchvision_name(name: str) -> None:
    from torchvision import models

    classifiers = models.list_models(module=models)
    if name in classifiers:
        return
    if name in models.list_models():
        raise ModelError(
            f"{TORCHVISION_PREFIX}{name} is no classifier: it segments, detects or matches"
        )
    near = format_suggestion(name, classifiers)
    raise ModelError(f"no classifier {name!r} in torchvision{near} (`camcli models torchvision:`)")


def create_network(name: str, size: InputSize, **options: Any) -> nn.Module:
    """A network; one that is built for a single input size is built for this one.

    Raises ModelError where it cannot be, or would not fit into memory.
    """
    ours = name.startswith(TORCHVISION_PREFIX)
    config = None if ours or name.startswith(HUB_PREFIXES) else timm.get_pretrained_cfg(name)
    if size is not None and config is not None and config.fixed_input_size:
        options["img_size"] = size
    make = partial(_create_torchvision if ours else timm.create_model, name)
    try:
        if not (name.startswith(HUB_PREFIXES) or _is_meta_default()):
            _check_memory(
                name, partial(make, **{k: v for k, v in options.items() if k not in WEIGHT_OPTIONS})
            )
        network: nn.Module = make(**options)
    except BUILD_ERRORS as error:
        if options.keys() & {*WEIGHT_OPTIONS}:
            raise  # it may be the weights
        wanted = f" for a {size[0]}x{size[1]} input" if size else ""
        reason = str(error).partition("\n")[0]
        raise ModelError(f"{name} cannot be built{wanted}: {reason}") from None
    return network


def _create_torchvision(name: str, **options: Any) -> nn.Module:
    from torchvision import models

    name = name.removeprefix(TORCHVISION_PREFIX)
    if name in ARCHITECTURES_WITH_AUX:  # with weights of their own they set both themselves
        options |= {} if options.get("weights") else {"aux_logits": False, "init_weights": False}
    network: nn.Module = models.get_model(name, **options)
    return network


def _is_meta_default() -> bool:
    """Whether networks are being made without memory for their numbers."""
    return torch.empty(0).is_meta


def _check_memory(name: str, make: Callable[[], nn.Module]) -> None:
    """Weights that exceed the memory would not raise: the system would end the process."""
    free = _read_free_memory()
    if free is None:
        return
    with torch.device("meta"), suppress(NotImplementedError):
        needed = sum(p.numel() * p.element_size() for p in make().parameters())
        if needed > free:
            raise ModelError(
                f"{name} needs {needed / 2**30:.1f} GB for its weights, and {free / 2**30:.1f} GB "
                f"of memory are free; take a smaller variant (`camcli models {name.split('_')[0]}`)"
            )


def _read_free_memory() -> int | None:
    """The bytes of memory that can be had, where the system says so."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def find_transform(name: str, network: nn.Module, size: InputSize) -> Transform:
    """How an architecture wants its input, as its library has it."""
    if name.startswith(TORCHVISION_PREFIX):
        return _find_torchvision_transform(name.removeprefix(TORCHVISION_PREFIX), size)
    config = resolve_data_config(model=network)
    return Transform(
        size or tuple(config["input_size"][1:]),
        tuple(config["mean"]),
        tuple(config["std"]),
        config["interpolation"],
        config["crop_pct"],
    )


def _find_torchvision_transform(name: str, size: InputSize) -> Transform:
    from torchvision import models

    said: Any = models.get_model_weights(name).DEFAULT.transforms()
    (crop,), (resize,) = said.crop_size, said.resize_size
    return Transform(
        size or (crop, crop),
        tuple(said.mean),
        tuple(said.std),
        said.interpolation.value,
        crop / resize,
    )


def find_normalization_override(name: str) -> dict[str, Any]:
    """What published weights of torchvision's ask for that their loader, and no file, would tell.

    Its GoogLeNet and Inception normalise their inputs once more, to a mean and deviation of 0.5.
    """
    again = name.removeprefix(TORCHVISION_PREFIX) in ARCHITECTURES_WITH_AUX
    return (
        {"mean": (0.5,) * 3, "std": (0.5,) * 3}
        if again and name.startswith(TORCHVISION_PREFIX)
        else {}
    )


def has_no_classifier(network: Any) -> bool:
    """Whether timm says that a network yields features only."""
    ask = getattr(network, "get_classifier", None)
    if getattr(network, "num_classes", None) != 0 or not callable(ask):
        return False
    return isinstance(ask(), nn.Identity)


def load_builtin(name: str, size: InputSize) -> LoadedNetwork:
    """One of the networks that need no download."""
    if name == BUILTIN_CNN:
        network = load_builtin_cnn()
        return LoadedNetwork(name, network, find_transform(name, network, size))
    card = read_builtin_card()
    check_trained_size(size, card.transform.size, name)
    thresholds = card.thresholds if name == BUILTIN_TSCAM else {}
    return LoadedNetwork(name, load_builtin_vit(name), card.transform, None, thresholds)


def check_trained_size(size: InputSize, trained_at: tuple[int, int], subject: object) -> None:
    """Position embeddings fit the one grid that they were trained on. Raises ModelError."""
    if size not in (None, trained_at):
        raise ModelError(f"{subject} was trained at {trained_at[0]}; leave --size out")


DEFAULT_INPUT_SIZE = (224, 224)
