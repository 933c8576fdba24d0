"""Load a network from a weights file: by its card, its tensor shapes, or the given name."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from camcli.core.errors import CheckpointError, ModelError
from camcli.core.types import Transform
from camcli.models.introspection.heads import ConvHead
from camcli.models.zoo.architectures import create_network, create_untrained
from camcli.models.zoo.checkpoints import (
    CheckpointFile,
    align_keys,
    find_classifier_layers,
    has_same_shapes,
    is_tscam_vit,
    lacks_classifier,
    load_into_network,
    load_weights,
    read_checkpoint,
)
from camcli.models.zoo.conformer import (
    CONFORMER_INPUT_SIDE,
    create_conformer,
    is_original_conformer,
    is_tscam_conformer,
)
from camcli.models.zoo.deep_heads import attach_deep_head, write_head_function
from camcli.models.zoo.fastai_layout import is_fastai_layout, load_fastai
from camcli.models.zoo.input_channels import count_input_channels
from camcli.models.zoo.libraries import find_library
from camcli.models.zoo.libraries.timm import LIBRARY as TIMM
from camcli.models.zoo.library import LoadedNetwork, Size, check_trained_size, join_notes
from camcli.models.zoo.mctformer import find_mctformer_version, load_mctformer
from camcli.models.zoo.metadata import CheckpointMetadata, read_metadata
from camcli.models.zoo.model_card import MAX_INPUT_SIDE, ModelCard, read_model_card
from camcli.models.zoo.recognition import ArchitectureMatch, find_architecture
from camcli.models.zoo.recognition_notes import (
    check_not_transformers,
    describe_recognition,
    format_names,
)
from camcli.models.zoo.replace_head import HEAD_ATTACHERS
from camcli.models.zoo.signatures import AUXILIARY_HEADS, find_layer_keys
from camcli.models.zoo.state_tables import StateDict
from camcli.models.zoo.wrapper_prefix import strip_wrapper


def load_checkpoint_network(path: Path, name: str | None, size: Size | None) -> LoadedNetwork:
    """The network of a file; `name` is its architecture, or None to identify the file.

    Raises CheckpointError or ModelError, which tell the user what to do.
    """
    card = read_model_card(path)
    if card is not None and name in (None, card.model):
        return load_trained_network(path, card, size)
    checkpoint = read_checkpoint(path)
    if find_mctformer_version(checkpoint.shapes):  # its head may be a convolution like TS-CAM's
        return load_mctformer(path, checkpoint, size)
    if is_tscam_vit(checkpoint.shapes):
        return load_tscam_vit(path, checkpoint.load_state(), size)
    if is_tscam_conformer(checkpoint.shapes) or is_original_conformer(checkpoint.shapes):
        return load_conformer(path, checkpoint, size)
    if is_fastai_layout(checkpoint.shapes):
        return load_fastai(path, checkpoint.load_state(), size)
    metadata = read_metadata(path, checkpoint.content)
    if name is None:
        return _load_recognized(path, checkpoint, metadata, size)
    find_library(name).check_name(name)
    return _load_architecture(path, name, checkpoint.load_state(), metadata, size)


def load_trained_network(path: Path, card: ModelCard, size: Size | None) -> LoadedNetwork:
    """A network with a head that `camcli train` has fitted, as the card describes it."""
    trained_at = card.transform.size
    if card.head == "tscam":
        check_trained_size(size, trained_at, path)
    plain = create_untrained(card.model, trained_at, card.transform.channel_count)
    network = HEAD_ATTACHERS[card.head](plain.network, len(card.classes), trained_at, card.model)
    load_into_network(network, load_weights(path), path, f"{card.head} {card.model}")
    transform = replace(card.transform, size=size or trained_at)
    name = f"{card.head}_{card.model}"
    return LoadedNetwork(name, network, transform, card.classes, card.thresholds, card.model)


def _load_recognized(
    path: Path, checkpoint: CheckpointFile, metadata: CheckpointMetadata, size: Size | None
) -> LoadedNetwork:
    hints = (*metadata.architecture_names, path.stem, path.absolute().parent.name)
    found = find_architecture(checkpoint.shapes, hints)
    if found is None:
        # Older layouts use other names for the same tensors. timm can convert many of them.
        named = (hint.removeprefix("timm/") for hint in (*metadata.architecture_names, path.stem))
        known_name = next(filter(TIMM.has_name, named), None)
        if known_name:
            return _load_architecture(path, known_name, checkpoint.load_state(), metadata, size)
        check_not_transformers(path)
        raise ModelError(
            f"{path}: its tensor shapes match no known architecture; name it with "
            f"--model NAME or --model package.module:function, and --checkpoint {path}"
        )
    if found.name is None:
        raise ModelError(
            f"{path} fits several architectures that compute different things: "
            f"{format_names(found.candidates)}; choose one with --model NAME --checkpoint {path}"
        )
    if found.class_count is None and not TIMM.has_name(found.name):
        raise ModelError(
            f"{path} is a {found.name} without its classifier, so no class can be explained"
        )
    name = _add_weights_tag(found.name, hints)
    built = _load_architecture(
        path, name, _extract_inner_state(checkpoint.load_state(), found), metadata, size
    )
    said = describe_recognition(path, found, built.transform, metadata)
    return replace(built, note=join_notes(said, built.note))


def _add_weights_tag(name: str, hints: Sequence[str]) -> str:
    """The name with the tag of the published weights, if the file is named after such weights."""
    tags = {f"{name}.{hint.partition(f'{name}.')[2]}" for hint in hints}
    return next(iter(sorted(tags & {*find_library(name).list_tagged_names(name)})), name)


def _extract_inner_state(state: StateDict, found: ArchitectureMatch) -> StateDict:
    """The architecture's keys without their prefix, and a classifier that has no prefix."""
    inside = {k: v for k, v in state.items() if k.startswith(found.prefix)}
    own = {k.removeprefix(found.prefix): v for k, v in inside.items()}
    beside = {k: v for k, v in state.items() if k not in inside}
    return {**{k: beside[k] for k in find_layer_keys(beside, found.head_layers)}, **own}


def _load_architecture(
    path: Path, name: str, state: StateDict, metadata: CheckpointMetadata, size: Size | None
) -> LoadedNetwork:
    """An architecture with these weights; the rows of its classifier give the number of classes."""
    library = find_library(name)
    with torch.device("meta"):  # only keys and shapes are needed
        plain = create_network(library.remove_tag(name), size)
    state = {k: v for k, v in state.items() if k.partition(".")[0] not in AUXILIARY_HEADS}
    state, note = strip_wrapper(state, plain)
    state = align_keys(state, plain)
    _check_patch_size(path, name, plain, state)
    trained_at = size or _find_trained_size(plain, state)
    classes = _count_head_classes(plain, state)
    if classes is None and lacks_classifier(plain, state) and TIMM.owns(name):
        classes = 0
    channels = count_input_channels(plain, state)
    options = {} if classes is None else {"num_classes": classes}
    if channels != 3:
        options["in_chans"] = channels
    network = create_network(name, trained_at, **options)
    head_note = attach_deep_head(network, plain, state)
    load_into_network(
        network,
        _convert_layout(network, state),
        path,
        name,
        write_head_function(name, find_classifier_layers(network)),
    )
    settings = {**library.find_checkpoint_settings(name), **metadata.transform_settings}
    transform = replace(library.find_transform(name, trained_at, network), **settings)
    return LoadedNetwork(
        name,
        network,
        transform.with_channels(channels),
        metadata.class_names,
        note=join_notes(note, head_note),
    )


def _check_patch_size(path: Path, name: str, plain: nn.Module, state: StateDict) -> None:
    """Raise CheckpointError for another patch size: timm would resample the kernel silently."""
    key = "patch_embed.proj.weight"
    own, theirs = plain.state_dict().get(key), state.get(key)
    if own is None or theirs is None or not own.ndim == theirs.ndim == 4:
        return
    if own.shape[2:] != theirs.shape[2:]:
        raise CheckpointError(
            f"{path} has patches of {theirs.shape[2]}x{theirs.shape[3]}, but {name} has patches of "
            f"{own.shape[2]}x{own.shape[3]}; choose another variant with --model"
        )


def _count_head_classes(plain: nn.Module, state: StateDict) -> int | None:
    """The number of classes of a classifier with the architecture's width; None without one.

    Another width is ignored: a tiny hostile file could otherwise ask for a huge classifier.
    """
    own = plain.state_dict()
    keys = [f"{layer}.weight" for layer in find_classifier_layers(plain)]
    heads = [(state[key].shape, own[key].shape) for key in keys if key in state and key in own]
    counts = {theirs[0] for theirs, ours in heads if theirs[1:] == ours[1:] and theirs.numel()}
    return counts.pop() if counts else None


def _find_trained_size(network: Any, state: StateDict) -> Size | None:
    """The input size of the position embeddings, if their grid is not the network's own."""
    own, theirs = getattr(network, "pos_embed", None), state.get("pos_embed")
    embed: Any = getattr(network, "patch_embed", None)
    if own is None or theirs is None or not own.ndim == theirs.ndim == 3:
        return None
    rows, cols = getattr(embed, "grid_size", (0, 0))
    patches = theirs.shape[1] - own.shape[1] + rows * cols
    side = math.isqrt(max(patches, 0))
    fits = rows and side and side != rows and side * side == patches
    wanted = side * embed.patch_size[0] if fits else 0
    return (wanted, wanted) if 0 < wanted <= MAX_INPUT_SIDE else None


def _convert_layout(network: nn.Module, state: StateDict) -> StateDict:
    """Weights under today's names: each module of timm can convert its own older layouts."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None or has_same_shapes(network, state):
        return state
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the memory layout of tensors
            return dict(convert(dict(state), network))
    except (KeyError, RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return state  # an unknown layout; loading reports what does not fit


def load_tscam_vit(path: Path, state: StateDict, size: Size | None) -> LoadedNetwork:
    """A TS-CAM transformer from its official checkpoint.

    The width gives the variant, `pos_embed` the resolution, `head` the number of classes. The
    transform is squash, bilinear, ImageNet's mean and std. Raises CheckpointError.
    Source: https://arxiv.org/abs/2103.14862
    """
    classes, width = state["head.weight"].shape[:2]
    tokens = state["pos_embed"].shape[1]
    grid = math.isqrt(max(tokens - 1, 0))
    if (
        not state["head.weight"].numel()
        or not state["pos_embed"].numel()
        or grid * 16 > MAX_INPUT_SIDE
    ):
        raise CheckpointError(
            f"{path}: the TS-CAM head or the position embeddings have an impossible size"
        )
    if grid < 1 or grid * grid + 1 != tokens:
        raise CheckpointError(
            f"{path}: {tokens} position embeddings are not one CLS token plus a square grid"
        )
    variants = {192: "deit_tiny", 384: "deit_small", 768: "deit_base"}
    if width not in variants:
        raise CheckpointError(
            f"{path}: the TS-CAM head has width {width}; camcli knows 192, 384 and 768"
        )
    trained_at = (grid * 16, grid * 16)
    check_trained_size(size, trained_at, path)
    plain = f"{variants[width]}_patch16_224"
    options: dict[str, Any] = {"num_classes": 0, "global_pool": "", "img_size": trained_at}
    with torch.device("meta"):
        channels = count_input_channels(create_network(plain, None), state)
    network = create_network(plain, None, in_chans=channels, **options)
    network.head = ConvHead(width, classes, (grid, grid), prefix=1)
    # SCM, TS-CAM's successor, also saves `layers.*`, which only its training uses.
    kept = {_to_conv_key(k): v for k, v in state.items() if not k.startswith("layers.")}
    load_into_network(network, kept, path, f"TS-CAM {variants[width]} at {trained_at[0]}")
    name = f"tscam_{variants[width]}_patch16_{trained_at[0]}"
    return LoadedNetwork(name, network, Transform(trained_at), architecture=plain)


def _to_conv_key(key: str) -> str:
    return key.replace("head.", "head.conv.") if key.startswith("head.") else key


def load_conformer(path: Path, checkpoint: CheckpointFile, size: Size | None) -> LoadedNetwork:
    """A Conformer with TS-CAM's classifier or its own. Raises CheckpointError or ModelError."""
    network = create_conformer(checkpoint.shapes)
    load_into_network(network, checkpoint.load_state(), path, "Conformer")
    side = CONFORMER_INPUT_SIDE
    if size is not None and any(length % network.patch for length in size):
        raise ModelError(f"--size: a Conformer needs multiples of {network.patch}")
    name = (
        f"{'' if network.linear_heads else 'tscam_'}conformer_w{network.width}_patch{network.patch}"
    )
    return LoadedNetwork(name, network, Transform(size or (side, side)))
