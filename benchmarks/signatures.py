"""The marks by which camcli knows an architecture: camcli/models/zoo/signatures.json.

    python benchmarks/signatures.py       # every classifier of every library; some minutes

Networks are built on the meta device, which gives names and shapes and takes no memory. Those that
share a signature are told apart by what their modules are and do, without their weights.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import timm
import torch
import torchvision
from torch import nn
from torchvision.models.regnet import BlockParams

from camcli.models.zoo import checkpoints
from camcli.models.zoo.libraries import find_library, list_model_names
from camcli.models.zoo.signatures import (
    AUXILIARY_HEADS,
    Signature,
    compute_signature,
    find_layer_keys,
    hash_lines,
)

FILE = Path(__file__).parent.parent / "camcli" / "models" / "zoo" / "signatures.json"
CLASSES = 7  # few, so that no other tensor has as many rows by chance

# What modules keep that changes no output, or that follows the classes or the image's size.
SILENT = frozenset(
    {
        *("training", "num_classes", "num_classes_distilled", "default_cfg", "pretrained_cfg"),
        *("fused_attn", "grad_checkpointing", "memory_efficient", "distilled_training"),
        *("drop_rate", "drop_prob", "drop", "dropout", "scale_by_keep", "p", "stochastic_depth"),
        *("drop_path_rate", "attn_drop_rate", "proj_drop_rate", "head_drop_rate", "pos_drop_rate"),
        *("attn_drop", "proj_drop", "keep_prob", "init_values", "init_value", "weight_init"),
        *("img_size", "image_size", "input_size", "input_resolution", "grid_size", "feat_size"),
        *("num_patches", "seq_len", "seq_length", "resolution", "dynamic_img_size"),
        *("strict_img_size", "inplace", "momentum", "call_super_init", "dump_patches"),
        *("transform_input", "aux_logits", "always_partition"),
    }
)
# Modules that pass on what they get once training is over.
PASSING = (nn.Identity, nn.Dropout, nn.Dropout2d)


@dataclass(frozen=True, slots=True)
class Marked:
    """An architecture with what it is known by; `rank` is smaller for a better name."""

    name: str
    signature: Signature
    behaviour: str
    classifier: tuple[str, ...]
    rank: tuple[bool, bool, int, str]


def every() -> Iterator[Marked]:
    """All architectures that can be built; the others are named on stderr."""
    for name in [*timm.list_models(), *(n for n in list_model_names() if ":" in n)]:
        try:
            yield marked(name)
        except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError) as error:
            print(f"{name}: {error}", file=sys.stderr)


def marked(name: str) -> Marked:
    """One architecture."""
    network = built(name, CLASSES)
    shapes = shapes_of(network)
    layers = covering(shapes, heads(network, name))
    return Marked(
        name,
        compute_signature(shapes, find_layer_keys(shapes, layers)),
        behaviour(network, layers),
        layers,
        rank(name),
    )


def rank(name: str) -> tuple[bool, bool, int, str]:
    """timm's first, then those that have weights, then the shortest name, then the alphabet."""
    config = timm.get_pretrained_cfg(name) if ":" not in name else None
    return ":" in name, config is None or not config.has_weights, len(name), name


def built(name: str, classes: int, device: str = "meta") -> nn.Module:
    """A network; on the meta device without numbers in it."""
    with torch.device(device), patch.object(BlockParams, "from_init_params", _on_cpu()):
        return find_library(name).create(name, None, num_classes=classes)


def _on_cpu() -> Callable[..., Any]:
    """RegNet's widths, which torchvision reckons with tensors and reads."""
    plain = BlockParams.from_init_params

    def from_init_params(*arguments: Any, **options: Any) -> Any:
        with torch.device("cpu"):
            return plain(*arguments, **options)

    return from_init_params


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """What its weights file would hold."""
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def heads(network: nn.Module, name: str) -> set[str]:
    """The keys of the classifier: those that its class count changes, and what goes with it."""
    before = shapes_of(network)
    named = find_layer_keys(before, checkpoints.find_classifier_layers(network))
    after = shapes_of(headless(network) if timm.is_model(name) else built(name, CLASSES + 1))
    gone = {*named, *(key for key in before if after.get(key) != before[key])}
    return {key for key in gone if key.partition(".")[0] not in AUXILIARY_HEADS}


def headless(network: nn.Module) -> nn.Module:
    """Without its classifier, as far as it can be had so."""
    reset = getattr(network, "reset_classifier", None)
    if reset is not None:
        reset(0)
    return network


def covering(shapes: Mapping[str, Any], gone: set[str]) -> tuple[str, ...]:
    """The fewest modules that hold these keys and no others: fc.weight, fc.bias -> fc."""
    kept = {key for key in shapes if key not in gone}
    spared = {prefix for key in kept for prefix in parents(key)}
    tops = {next(p for p in [*parents(key), key] if p not in spared) for key in gone}
    return tuple(sorted(tops))


def parents(key: str) -> list[str]:
    """From the outside in: a.b.c -> a, a.b."""
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def behaviour(network: nn.Module, classifier: tuple[str, ...]) -> str:
    """What its modules are and how they are set, with everything left out that changes no output.

    Equal ones are the same function of weights and image; unequal ones may be too.
    """
    heads = tuple(f"{layer}." for layer in classifier)
    rows = [
        f"{name} {type(module).__name__} {settings(module)}"
        for name, module in network.named_modules()
        if not isinstance(module, PASSING) and "Drop" not in type(module).__name__
        if not f"{name}.".startswith(heads)
    ]
    return hash_lines(rows)


def settings(module: nn.Module) -> list[str]:
    """Its plain attributes, and the functions that it keeps by their names."""
    own = sorted(vars(module).items())
    return [f"{k}={plain(v)}" for k, v in own if _speaks(k) and plain(v) is not None]


def _speaks(key: str) -> bool:
    return key not in SILENT and not key.startswith("_")


def plain(value: Any) -> str | None:
    """A value as text that is the same in every process; None where it has no such text."""
    match value:
        case None | bool() | int() | float() | str():
            return repr(value)
        case tuple() | list():
            parts = [plain(part) for part in value]
            return None if None in parts else f"({', '.join(map(str, parts))})"
        case nn.Module() | torch.Tensor():
            return None
        case partial():
            return f"{plain(value.func)} {sorted(value.keywords)}"
        case _:
            return getattr(value, "__qualname__", None)


def alike(one: str, other: str) -> bool:
    """Whether two networks of equal keys give equal logits: by trial, on one image of noise."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        image = torch.randn(1, 3, 96, 96, dtype=torch.float64)
        first, second = (built(name, CLASSES, "cpu").double().eval() for name in (one, other))
        found = second.load_state_dict(randomised(first.state_dict()), strict=False)
        misfits = [*found.missing_keys, *found.unexpected_keys]
        if any(key.partition(".")[0] not in AUXILIARY_HEADS for key in misfits):
            return False
        return torch.allclose(first(image), second(image), rtol=1e-9)


def randomised(state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """The same tensors, with statistics and scales that no initialisation has."""
    for value in state.values():
        if value.is_floating_point() and value.ndim == 1:
            value.uniform_(0.5, 1.5)
    return state


def joined(tied: list[Marked]) -> list[Marked]:
    """With torchvision's networks that do what a timm one does said to do so.

    The two libraries write the same function as different modules.
    """
    timms = [each for each in tied if ":" not in each.name]
    return [each if each in timms else like_one_of(timms, each) for each in tied]


def like_one_of(timms: list[Marked], each: Marked) -> Marked:
    """A torchvision architecture with the behaviour of the timm one that it equals, if any."""
    twin = next((twin for twin in timms if alike(each.name, twin.name)), each)
    return replace(each, behaviour=twin.behaviour)


def table(found: Iterable[Marked]) -> dict[str, list[list[Any]]]:
    """Name, exact signature and number of the behaviour of each, by trunk, best name first."""
    trunks = defaultdict(list)
    for each in sorted(found, key=lambda each: each.rank):
        trunks[each.signature.trunk].append(each)
    return {trunk: numbered(joined(tied)) for trunk, tied in sorted(trunks.items())}


def numbered(tied: list[Marked]) -> list[list[Any]]:
    """Those of one trunk, their behaviours counted from 0."""
    kinds = list(dict.fromkeys(each.behaviour for each in tied))
    return [[each.name, each.signature.exact, kinds.index(each.behaviour)] for each in tied]


def written(found: list[Marked]) -> str:
    """The index, one line a trunk so that a difference can be read."""
    versions = {"timm": timm.__version__, "torchvision": torchvision.__version__.partition("+")[0]}
    classifiers = sorted({each.classifier for each in found} - {()})
    trunks = (f"{json.dumps(trunk)}: {compact(rows)}" for trunk, rows in table(found).items())
    parts = (
        f'"versions": {json.dumps(versions)}',
        f'"classifiers": {lines("[]", map(json.dumps, classifiers))}',
        f'"trunks": {lines("{}", trunks)}',
    )
    return lines("{}", parts) + "\n"


def lines(brackets: str, parts: Iterable[str]) -> str:
    """A JSON container with one of its parts on each line."""
    return brackets[0] + "\n" + ",\n".join(parts) + "\n" + brackets[1]


def compact(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"))


def main() -> None:
    """Rewrite the index."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    FILE.write_text(written(list(every())), encoding="utf-8")


if __name__ == "__main__":
    main()
