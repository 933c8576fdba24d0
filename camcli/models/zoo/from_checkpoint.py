"""From a user's file of weights to a network: by its card, by its shapes, or by the name given.

Knows nothing of methods, layers or labels.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from camcli.core.errors import CheckpointError, ModelError
from camcli.core.types import Transform
from camcli.models.introspection.heads import ConvHead
from camcli.models.zoo import checkpoints, conformer
from camcli.models.zoo import model_card as trained
from camcli.models.zoo import replace_head as refit
from camcli.models.zoo.architectures import (
    TORCHVISION,
    Built,
    Size,
    blank,
    create,
    known,
    of_file,
    refuse_other,
)
from camcli.models.zoo.architectures import transform as usual
from camcli.models.zoo.checkpoints import Held, State
from camcli.models.zoo.metadata import Described, described
from camcli.models.zoo.model_card import LARGEST, Card
from camcli.models.zoo.pretrained import structure
from camcli.models.zoo.recognition import Recognised, recognise
from camcli.models.zoo.signatures import AUXILIARY, under


def from_file(path: Path, name: str | None, size: Size) -> Built:
    """The network of a file; `name` is its architecture, or None where the file is to tell.

    Raises CheckpointError or ModelError, with what to do.
    """
    card = trained.read(path)
    if card is not None and name in (None, card.model):
        return refitted(path, card, size)
    held = checkpoints.held(path)
    if checkpoints.is_tscam(held.shapes):
        return tscam(path, held.load(), size)
    if conformer.is_conformer(held.shapes) or conformer.is_plain(held.shapes):
        return coupled(path, held, size)
    said = described(path, held.content)
    if name is None:
        return _recognised(path, held, said, size)
    known(name)
    return _loaded(path, name, held.load(), said, size)


def refitted(path: Path, card: Card, size: Size) -> Built:
    """A network with a head that `camcli train` has fitted, as its file describes it."""
    trained_at = card.transform.size
    if card.head == "tscam":
        refuse_other(size, trained_at, path)
    plain = blank(card.model, trained_at)
    network = refit.REFITS[card.head](plain.network, len(card.classes), trained_at, card.model)
    checkpoints.load_into(network, checkpoints.read(path), path, f"{card.head} {card.model}")
    transform = replace(card.transform, size=size or trained_at)
    name = f"{card.head}_{card.model}"
    return Built(name, network, transform, card.classes, card.thresholds, card.model)


def _recognised(path: Path, held: Held, said: Described, size: Size) -> Built:
    hints = (*said.names, path.stem, path.absolute().parent.name)
    found = recognise(held.shapes, hints)
    if found is None:
        # Older layouts have other names for the same tensors: timm can convert many of them.
        named = (hint.removeprefix("timm/") for hint in (*said.names, path.stem))
        known_name = next((hint for hint in named if timm.is_model(hint.partition(".")[0])), None)
        if known_name:
            return _loaded(path, known_name, held.load(), said, size)
        raise ModelError(
            f"{path} has the shapes of nothing that timm or torchvision has; give what it is: "
            f"--model NAME, or --model package.module:function, and --checkpoint {path}"
        )
    if found.name is None:
        raise ModelError(
            f"{path} fits several networks that compute different things: "
            f"{_listed(found.candidates)}; choose with --model NAME --checkpoint {path}"
        )
    if found.classes is None:
        raise ModelError(f"{path} is a {found.name} without its classifier: nothing to explain")
    name = _tagged(found.name, hints)
    built = _loaded(path, name, _inner(held.load(), found), said, size)
    return replace(built, note=_note(path, found, built.transform, said))


def _tagged(name: str, hints: Sequence[str]) -> str:
    """With the tag of timm's published weights that the file is named after, if it is after one."""
    tags = {f"{name}.{hint.partition(f'{name}.')[2]}" for hint in hints}
    return next(iter(sorted(tags & {*timm.list_pretrained(f"{name}.*")})), name)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more


def _inner(state: State, found: Recognised) -> State:
    """The architecture's own keys, and a classifier that lies beside them."""
    inside = {k: v for k, v in state.items() if k.startswith(found.prefix)}
    own = {k.removeprefix(found.prefix): v for k, v in inside.items()}
    beside = {k: v for k, v in state.items() if k not in inside}
    return {**{k: beside[k] for k in under(beside, found.heads)}, **own}


def _note(path: Path, found: Recognised, transform: Transform, said: Described) -> str:
    """What was chosen, and what else the file may be, where that makes a difference."""
    others = [name for name in found.candidates if name != found.name]
    note = f"{path.name} is a {found.name} of {found.classes} classes"
    if found.beside:
        note += f" (what is not under {found.prefix} is left out: {_listed(found.beside)})"
    differ = [name for name in others if _normalisation(name) != _normalised(transform)]
    if not differ or {"mean", "std"} <= said.transform.keys():
        return note
    return (
        f"{note}; its images are taken to have {_normalised(transform)}. It may also be "
        f"{differ[0]} with {_normalisation(differ[0])}: then --model {differ[0]} --checkpoint, "
        f"or --mean and --std"
    )


def _normalised(transform: Transform) -> str:
    mean, std = (",".join(f"{v:.4g}" for v in values) for values in (transform.mean, transform.std))
    return f"mean {mean}, std {std}"


def _normalisation(name: str) -> str:
    """What the library says of a network's input, without building it."""
    if name.startswith(TORCHVISION):
        return _normalised(usual(name, nn.Identity(), None))
    config = timm.get_pretrained_cfg(name)
    return _normalised(Transform((0, 0), config.mean, config.std)) if config else ""


def _loaded(path: Path, name: str, state: State, said: Described, size: Size) -> Built:
    """An architecture with weights; its head's rows are the number of classes."""
    with torch.device("meta"):  # its names and shapes only
        plain = structure(name.partition(".")[0] if ":" not in name else name, size, None)
    state = {k: v for k, v in state.items() if k.partition(".")[0] not in AUXILIARY}
    state = checkpoints.aligned(state, plain)
    _refuse_other_patches(path, name, plain, state)
    trained_at = size or _trained_at(plain, state)
    classes = _rows(plain, state)
    network = structure(name, trained_at, classes)
    checkpoints.load_into(network, _converted(network, state), path, name)
    told = {**of_file(name), **said.transform}
    transform = replace(usual(name, network, trained_at), **told)
    return Built(name, network, transform, said.classes)


def _refuse_other_patches(path: Path, name: str, plain: nn.Module, state: State) -> None:
    """timm would resample the kernel of another patch size, and the rest would be nonsense."""
    key = "patch_embed.proj.weight"
    own, theirs = plain.state_dict().get(key), state.get(key)
    if own is None or theirs is None or not own.ndim == theirs.ndim == 4:
        return
    if own.shape[2:] != theirs.shape[2:]:
        raise CheckpointError(
            f"{path} has patches of {theirs.shape[2]}x{theirs.shape[3]}, and {name} of "
            f"{own.shape[2]}x{own.shape[3]}: it is another variant"
        )


def _rows(plain: nn.Module, state: State) -> int | None:
    """How many classes a classifier of the architecture's own width has; None without one.

    No other width is believed: a head of no columns would cost its file nothing, and us a network.
    """
    own = plain.state_dict()
    keys = [f"{layer}.weight" for layer in checkpoints.classifiers(plain)]
    heads = [(state[key].shape, own[key].shape) for key in keys if key in state and key in own]
    counts = {theirs[0] for theirs, ours in heads if theirs[1:] == ours[1:] and theirs.numel()}
    return counts.pop() if counts else None


def _trained_at(network: Any, state: State) -> Size:
    """The input size of position embeddings that are of another grid than the network's."""
    own, theirs = getattr(network, "pos_embed", None), state.get("pos_embed")
    embed: Any = getattr(network, "patch_embed", None)
    if own is None or theirs is None or not own.ndim == theirs.ndim == 3:
        return None
    rows, cols = getattr(embed, "grid_size", (0, 0))
    patches = theirs.shape[1] - own.shape[1] + rows * cols
    side = math.isqrt(max(patches, 0))
    fits = rows and side and side != rows and side * side == patches
    wanted = side * embed.patch_size[0] if fits else 0
    return (wanted, wanted) if 0 < wanted <= LARGEST else None


def _converted(network: nn.Module, state: State) -> State:
    """Weights under timm's names: each of its modules knows the older layouts of its own."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None or checkpoints.fits(network, state):
        return state
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about how tensors lie in memory
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
    if not state["head.weight"].numel() or not state["pos_embed"].numel() or grid * 16 > LARGEST:
        raise CheckpointError(f"{path}: a TS-CAM head or position embeddings of no possible size")
    if grid < 1 or grid * grid + 1 != tokens:
        raise CheckpointError(f"{path}: {tokens} position embeddings are no CLS and square grid")
    variants = {192: "deit_tiny", 384: "deit_small", 768: "deit_base"}
    if width not in variants:
        raise CheckpointError(f"{path}: a TS-CAM head of width {width}; 192, 384 and 768 are known")
    trained_at = (grid * 16, grid * 16)
    refuse_other(size, trained_at, path)
    plain = f"{variants[width]}_patch16_224"
    network = create(plain, None, num_classes=0, global_pool="", img_size=trained_at)
    network.head = ConvHead(width, classes, (grid, grid), prefix=1)
    # SCM, TS-CAM's successor, carries `layers.*` that serve its training only.
    kept = {_conv_key(k): v for k, v in state.items() if not k.startswith("layers.")}
    checkpoints.load_into(network, kept, path, f"TS-CAM {variants[width]} at {trained_at[0]}")
    name = f"tscam_{variants[width]}_patch16_{trained_at[0]}"
    return Built(name, network, Transform(trained_at), architecture=plain)


def _conv_key(key: str) -> str:
    return key.replace("head.", "head.conv.") if key.startswith("head.") else key


def coupled(path: Path, held: Held, size: Size) -> Built:
    """A Conformer, with TS-CAM's head or its own, recognised by the file alone."""
    network = conformer.from_shapes(held.shapes)
    checkpoints.load_into(network, held.load(), path, "Conformer")
    side = conformer.SIZE
    if size is not None and any(length % network.patch for length in size):
        raise ModelError(f"--size: a Conformer takes multiples of {network.patch}")
    name = f"{'' if network.plain else 'tscam_'}conformer_w{network.width}_patch{network.patch}"
    return Built(name, network, Transform(size or (side, side)))
