"""Write the index by which camcli recognizes architectures: camcli/models/zoo/signatures.json.

    python benchmarks/signatures.py       # every classifier of every library; some minutes

Creates the networks on the meta device, which gives names and shapes and takes no memory. Networks
with the same signature differ in the types and settings of their modules, which need no weights.
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

INDEX_FILE = Path(__file__).parent.parent / "camcli" / "models" / "zoo" / "signatures.json"
CLASS_COUNT = 7  # few, so that no other tensor has as many rows by chance

# Attributes of modules that change no output, or that depend on the classes or the image size.
SILENT_ATTRIBUTES = frozenset(
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
# Modules that do nothing outside training.
IDLE_MODULES = (nn.Identity, nn.Dropout, nn.Dropout2d)


@dataclass(frozen=True, slots=True)
class Architecture:
    """An architecture and its signature; `rank` is smaller for a better name."""

    name: str
    signature: Signature
    behaviour: str
    classifier: tuple[str, ...]
    stem: tuple[str, ...]
    rank: tuple[bool, bool, int, str]


def iter_architectures() -> Iterator[Architecture]:
    """All architectures that can be created; the names of the others go to stderr."""
    for name in [*timm.list_models(), *(n for n in list_model_names() if ":" in n)]:
        try:
            yield describe_architecture(name)
        except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError) as error:
            print(f"{name}: {error}", file=sys.stderr)


def describe_architecture(name: str) -> Architecture:
    """One architecture."""
    network = create_network(name, CLASS_COUNT)
    shapes = list_shapes(network)
    layers = find_covering_modules(shapes, find_head_keys(network, name))
    return Architecture(
        name,
        compute_signature(shapes, find_layer_keys(shapes, layers)),
        hash_behaviour(network, layers),
        layers,
        find_stem(network),
        rank_name(name),
    )


def rank_name(name: str) -> tuple[bool, bool, int, str]:
    """timm's names first, then those with weights, then the shortest, then by the alphabet."""
    config = timm.get_pretrained_cfg(name) if ":" not in name else None
    return ":" in name, config is None or not config.has_weights, len(name), name


def create_network(name: str, classes: int, device: str = "meta") -> nn.Module:
    """A network; on the meta device it has shapes and no values."""
    with torch.device(device), patch.object(BlockParams, "from_init_params", _on_cpu()):
        return find_library(name).create(name, None, num_classes=classes)


def _on_cpu() -> Callable[..., Any]:
    """Computes RegNet's widths on the CPU: torchvision reads them from tensors."""
    original = BlockParams.from_init_params

    def from_init_params(*arguments: Any, **options: Any) -> Any:
        with torch.device("cpu"):
            return original(*arguments, **options)

    return from_init_params


def list_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The keys and shapes of its weights file."""
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def find_stem(network: nn.Module) -> tuple[str, ...]:
    """The convolutions that read the three channels of the image."""
    named = network.named_modules()
    return tuple(sorted(n for n, m in named if isinstance(m, nn.Conv2d) and m.in_channels == 3))


def find_head_keys(network: nn.Module, name: str) -> set[str]:
    """The keys of the classifier: those that depend on the class count, and their layers'."""
    before = list_shapes(network)
    named = find_layer_keys(before, checkpoints.find_classifier_layers(network))
    if timm.is_model(name):
        after = list_shapes(remove_classifier(network))
    else:
        after = list_shapes(create_network(name, CLASS_COUNT + 1))
    gone = {*named, *(key for key in before if after.get(key) != before[key])}
    return {key for key in gone if key.partition(".")[0] not in AUXILIARY_HEADS}


def remove_classifier(network: nn.Module) -> nn.Module:
    """The network without its classifier, if it offers that."""
    reset = getattr(network, "reset_classifier", None)
    if reset is not None:
        reset(0)
    return network


def find_covering_modules(shapes: Mapping[str, Any], gone: set[str]) -> tuple[str, ...]:
    """The fewest modules that hold these keys and no others: fc.weight, fc.bias -> fc."""
    kept = {key for key in shapes if key not in gone}
    spared = {prefix for key in kept for prefix in list_parents(key)}
    tops = {next(p for p in [*list_parents(key), key] if p not in spared) for key in gone}
    return tuple(sorted(tops))


def list_parents(key: str) -> list[str]:
    """The modules around a key, outermost first: a.b.c -> a, a.b."""
    parts = key.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def hash_behaviour(network: nn.Module, classifier: tuple[str, ...]) -> str:
    """A hash of the types and settings of its modules that can change the output.

    Networks with the same hash compute the same function. With different hashes they may too.
    """
    heads = tuple(f"{layer}." for layer in classifier)
    rows = [
        f"{name} {type(module).__name__} {format_settings(module)}"
        for name, module in network.named_modules()
        if not isinstance(module, IDLE_MODULES) and "Drop" not in type(module).__name__
        if not f"{name}.".startswith(heads)
    ]
    return hash_lines(rows)


def format_settings(module: nn.Module) -> list[str]:
    """Its plain attributes, and the names of its functions."""
    own = sorted(vars(module).items())
    return [f"{k}={to_text(v)}" for k, v in own if _can_change_output(k) and to_text(v) is not None]


def _can_change_output(key: str) -> bool:
    return key not in SILENT_ATTRIBUTES and not key.startswith("_")


def to_text(value: Any) -> str | None:
    """A value as text that is the same in every process, or None."""
    match value:
        case None | bool() | int() | float() | str():
            return repr(value)
        case tuple() | list():
            parts = [to_text(part) for part in value]
            return None if None in parts else f"({', '.join(map(str, parts))})"
        case nn.Module() | torch.Tensor():
            return None
        case partial():
            return f"{to_text(value.func)} {sorted(value.keywords)}"
        case _:
            return getattr(value, "__qualname__", None)


def compute_same_logits(one: str, other: str) -> bool:
    """Whether two networks with the same keys give the same logits for one image of noise."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        image = torch.randn(1, 3, 96, 96, dtype=torch.float64)
        first, second = (
            create_network(name, CLASS_COUNT, "cpu").double().eval() for name in (one, other)
        )
        found = second.load_state_dict(randomize_vectors(first.state_dict()), strict=False)
        misfits = [*found.missing_keys, *found.unexpected_keys]
        if any(key.partition(".")[0] not in AUXILIARY_HEADS for key in misfits):
            return False
        return torch.allclose(first(image), second(image), rtol=1e-9)


def randomize_vectors(state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """The same tensors, with random statistics and scales, unlike those of a new network."""
    for value in state.values():
        if value.is_floating_point() and value.ndim == 1:
            value.uniform_(0.5, 1.5)
    return state


def merge_libraries(tied: list[Architecture]) -> list[Architecture]:
    """Gives a torchvision network the behaviour of the timm network that it equals.

    The two libraries write the same function with different modules.
    """
    timms = [each for each in tied if ":" not in each.name]
    return [each if each in timms else copy_behaviour(timms, each) for each in tied]


def copy_behaviour(timms: list[Architecture], each: Architecture) -> Architecture:
    """A torchvision architecture, with the behaviour of an equal timm one if there is any."""
    twin = next((twin for twin in timms if compute_same_logits(each.name, twin.name)), each)
    return replace(each, behaviour=twin.behaviour)


def create_table(found: Iterable[Architecture]) -> dict[str, list[list[Any]]]:
    """By trunk: name, exact signature and number of the behaviour; the best name comes first."""
    trunks = defaultdict(list)
    for each in sorted(found, key=lambda each: each.rank):
        trunks[each.signature.trunk].append(each)
    return {
        trunk: number_behaviours(merge_libraries(tied)) for trunk, tied in sorted(trunks.items())
    }


def number_behaviours(tied: list[Architecture]) -> list[list[Any]]:
    """The rows of one trunk, with their behaviours numbered from 0."""
    kinds = list(dict.fromkeys(each.behaviour for each in tied))
    return [[each.name, each.signature.exact, kinds.index(each.behaviour)] for each in tied]


def format_index(found: list[Architecture]) -> str:
    """The index as JSON, with one line for each trunk so that people can read a difference."""
    versions = {"timm": timm.__version__, "torchvision": torchvision.__version__.partition("+")[0]}
    classifiers = sorted({each.classifier for each in found} - {()})
    stems = sorted({each.stem for each in found} - {()})
    trunks = (
        f"{json.dumps(trunk)}: {to_compact_json(rows)}"
        for trunk, rows in create_table(found).items()
    )
    parts = (
        f'"versions": {json.dumps(versions)}',
        f'"classifiers": {format_lines("[]", map(json.dumps, classifiers))}',
        f'"stems": {format_lines("[]", map(json.dumps, stems))}',
        f'"trunks": {format_lines("{}", trunks)}',
    )
    return format_lines("{}", parts) + "\n"


def format_lines(brackets: str, parts: Iterable[str]) -> str:
    """A JSON container with a line for each of its parts."""
    return brackets[0] + "\n" + ",\n".join(parts) + "\n" + brackets[1]


def to_compact_json(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"))


def main() -> None:
    """Rewrite the index."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    INDEX_FILE.write_text(format_index(list(iter_architectures())), encoding="utf-8")


if __name__ == "__main__":
    main()
