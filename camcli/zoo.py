"""Where networks come from: the embedded one, timm by name, a file of weights.

Knows nothing of methods, layers or labels.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import timm
from huggingface_hub import constants, try_to_load_from_cache
from timm.data.config import resolve_data_config
from torch import nn

from camcli import checkpoints, embedded, refit, trained
from camcli.checkpoints import State
from camcli.errors import CheckpointError, ModelError, UsageError, hint
from camcli.heads import ConvHead
from camcli.records import Transform
from camcli.trained import Card

Size = tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Built:
    """A network with its weights, its transform, and what its file says of classes and boxes.

    `architecture` is the name under which its bare structure can be had again, by `blank`.
    """

    name: str
    network: nn.Module
    transform: Transform
    classes: tuple[str, ...] | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    architecture: str | None = None


def build(name: str | None, checkpoint: Path | None, size: Size) -> Built:
    """The network that `--model` and `--checkpoint` name, with its weights and its transform."""
    file = checkpoint or (Path(name) if name and os.path.isfile(name) else None)
    if file is None:
        known = embedded.CNN if name is None else name
        return offline(known, size) if known in embedded.NAMES else pretrained(known, size)
    card = trained.read(file)
    if card is not None and name in (None, str(file), card.model):
        return refitted(file, card, size)
    state = checkpoints.read(file)
    if checkpoints.is_tscam(state):
        return tscam(file, state, size)
    if name is None or checkpoint is None or os.path.isfile(name):
        raise UsageError(
            f"{file} does not say its architecture; use --model NAME --checkpoint {file}"
        )
    return with_weights(name, file, state, size)


def offline(name: str, size: Size) -> Built:
    """One of the networks that need no download."""
    if name == embedded.CNN:
        network = embedded.cnn()
        return Built(name, network, _transform(network, size))
    card = embedded.card()
    _refuse_other(size, card.transform.size, name)
    thresholds = card.thresholds if name == embedded.TSCAM else {}
    return Built(name, embedded.vit(name), card.transform, None, thresholds)


def _refuse_other(size: Size, trained_at: tuple[int, int], what: object) -> None:
    """Position embeddings fit the one grid that they were trained on."""
    if size not in (None, trained_at):
        raise UsageError(f"{what} was trained at {trained_at[0]}; leave --size out")


def refitted(path: Path, card: Card, size: Size) -> Built:
    """A network with a head that `camcli train` has fitted, as its file describes it."""
    trained_at = card.transform.size
    if card.head == "tscam":
        _refuse_other(size, trained_at, path)
    plain = blank(card.model, trained_at)
    network = refit.REFITS[card.head](plain.network, len(card.classes), trained_at, card.model)
    checkpoints.load_into(network, checkpoints.read(path), path, f"{card.head} {card.model}")
    transform = replace(card.transform, size=size or trained_at)
    name = f"{card.head}_{card.model}"
    return Built(name, network, transform, card.classes, card.thresholds, card.model)


def pretrained(name: str, size: Size) -> Built:
    """A timm network with the weights that the model hub has for it.

    Raises ModelError, naming --checkpoint, when they are neither here nor to be had.
    """
    repository = _repository(name)
    if not _cached(repository) and not _hub_reachable():
        raise ModelError(
            f"the weights of {name} are not on this machine and the model hub cannot be reached; "
            f"give them with --checkpoint FILE"
        )
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        network = _create(name, size, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"the weights of {name} cannot be had ({reason}); give them with --checkpoint FILE"
        ) from None
    # A repository of the hub says which of timm's architectures it holds.
    config = getattr(network, "pretrained_cfg", None) or {}
    plain = config.get("architecture") if name.startswith("hf-hub:") else None
    return Built(name, network, _transform(network, size), architecture=plain)


def _repository(name: str) -> str | None:
    """Where on the hub a model's weights are. Raises ModelError for what timm does not know."""
    if name.startswith("hf-hub:"):
        return name.removeprefix("hf-hub:").partition("@")[0]
    _check(name)
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ModelError(f"timm has no weights for {name}; give some with --checkpoint FILE")
    return config.hf_hub_id


def blank(name: str, size: Size) -> Built:
    """A network with random weights: its structure only."""
    if name in embedded.NAMES:
        return offline(name, size)
    _check(name)
    network = enlivened(_create(name, size))
    return Built(name, network, _transform(network, size))


def enlivened(network: nn.Module) -> nn.Module:
    """Random numbers for classifiers that start at zero, as some do: of those nothing is seen."""
    heads = (network.get_submodule(name) for name in checkpoints.classifiers(network))
    for parameter in (p for head in heads for p in head.parameters() if p.ndim > 1):
        if not parameter.any():
            nn.init.trunc_normal_(parameter, std=0.02)
    return network


def _check(name: str) -> None:
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = hint(architecture, timm.list_models())
        raise ModelError(f"no model {name!r} in timm{near} (`camcli models` lists them)")
    tags = timm.list_pretrained(f"{architecture}.*")
    if "." in name and name not in tags:
        raise ModelError(f"{architecture} has no weights of that tag; it has {', '.join(tags)}")


def _cached(repository: str | None) -> bool:
    """Whether the hub's weights of a model are already in this machine's cache."""
    names = ("model.safetensors", "pytorch_model.bin")
    try:
        found = [try_to_load_from_cache(repository, name) for name in names] if repository else []
    except ValueError:  # no name that the hub could have
        return False
    return any(isinstance(path, str) for path in found)


def _hub_reachable() -> bool:
    """Whether the hub's name resolves: its client would retry for most of a minute to find out."""
    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(key) for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    try:
        socket.getaddrinfo(urlparse(constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def loadable(name: str) -> bool:
    """Whether a model can be used on this machine as it is: embedded, or in the hub's cache."""
    config = timm.get_pretrained_cfg(name)
    return name in embedded.NAMES or (config is not None and _cached(config.hf_hub_id))


def _create(name: str, size: Size, **options: Any) -> nn.Module:
    """A timm network; one that is built for a single input size is built for this one."""
    config = None if name.startswith("hf-hub:") else timm.get_pretrained_cfg(name)
    if size is not None and config is not None and config.fixed_input_size:
        options["img_size"] = size
    try:
        network: nn.Module = timm.create_model(name, **options)
    except (AssertionError, TypeError) as error:
        wanted = f" for a {size[0]}x{size[1]} input" if size else ""
        raise ModelError(f"{name} cannot be built{wanted}: {error}") from None
    return network


def _transform(network: nn.Module, size: Size) -> Transform:
    config = resolve_data_config(model=network)
    return Transform(
        size or config["input_size"][1:],
        tuple(config["mean"]),
        tuple(config["std"]),
        config["interpolation"],
        config["crop_pct"],
    )


def with_weights(name: str, path: Path, state: State, size: Size) -> Built:
    """A timm architecture with weights from a file; its head's rows are the number of classes."""
    _check(name.partition(".")[0])
    plain = _create(name, size)
    state = checkpoints.aligned(state, plain)
    weights = [state.get(f"{layer}.weight") for layer in checkpoints.classifiers(plain)]
    counts = {weight.shape[0] for weight in weights if weight is not None and weight.ndim}
    network = _create(name, size, num_classes=counts.pop()) if counts else plain
    checkpoints.load_into(network, _converted(network, state), path, name)
    return Built(name, network, _transform(network, size))


def _converted(network: nn.Module, state: State) -> State:
    """Weights under timm's names: each of its modules knows the older layouts of its own."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None or checkpoints.fits(network, state):
        return state
    try:
        return dict(convert(dict(state), network))
    except (KeyError, RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return state  # not a layout that it knows; the misfit is reported as it stands


def tscam(path: Path, state: State, size: Size) -> Built:
    """A TS-CAM transformer from its official checkpoint, recognised by the file alone.

    Width gives the variant, pos_embed the resolution, the head the number of classes. Transform:
    squash, bilinear, ImageNet's mean and std. Source: https://arxiv.org/abs/2103.14862
    """
    classes, width = state["head.weight"].shape[:2]
    tokens = state["pos_embed"].shape[1]
    grid = math.isqrt(max(tokens - 1, 0))
    if grid < 1 or grid * grid + 1 != tokens:
        raise CheckpointError(f"{path}: {tokens} position embeddings are no CLS and square grid")
    variants = {192: "deit_tiny", 384: "deit_small", 768: "deit_base"}
    if width not in variants:
        raise CheckpointError(f"{path}: a TS-CAM head of width {width}; 192, 384 and 768 are known")
    trained_at = (grid * 16, grid * 16)
    _refuse_other(size, trained_at, path)
    network = timm.create_model(
        f"{variants[width]}_patch16_224", num_classes=0, global_pool="", img_size=trained_at
    )
    network.head = ConvHead(width, classes, (grid, grid), prefix=1)
    # SCM, TS-CAM's successor, carries `layers.*` that serve its training only.
    kept = {_conv_key(k): v for k, v in state.items() if not k.startswith("layers.")}
    checkpoints.load_into(network, kept, path, f"TS-CAM {variants[width]} at {trained_at[0]}")
    name = f"tscam_{variants[width]}_patch16_{trained_at[0]}"
    plain = f"{variants[width]}_patch16_224"
    return Built(name, network, Transform(trained_at), architecture=plain)


def _conv_key(key: str) -> str:
    return key.replace("head.", "head.conv.") if key.startswith("head.") else key
