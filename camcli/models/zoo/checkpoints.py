"""Read named tensors from an untrusted file of weights, and load them into a network.

No code from the file runs.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import torch
from numpy._core import multiarray
from safetensors.torch import load_file
from torch import Tensor, nn

from camcli.core.errors import CheckpointError
from camcli.models.zoo.pickled_objects import create_pickle_error
from camcli.models.zoo.state_tables import StateDict, find_tensors

Content = TypeVar("Content")

# Plain data that training scripts save next to the weights.
SAFE_GLOBALS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    multiarray.scalar,
    (multiarray.scalar, "numpy.core.multiarray.scalar"),  # the name that NumPy 1 wrote
    *(type(np.dtype(kind)) for kind in ("float32", "float64", "int32", "int64", "bool")),
]
OLD_DENSENET_PATTERN = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")  # older names
HEAD_NAMES = ("head.fc", "head", "fc", "classifier")  # of a classifier outside the trunk
KEY_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """A file of weights: shapes by key, other content, and a function that reads the tensors."""

    shapes: Mapping[str, tuple[int, ...]]
    content: Any
    load_state: Callable[[], StateDict]


def read_checkpoint(path: Path) -> CheckpointFile:
    """The shapes and the metadata of a file; of safetensors only the header is read.

    Raises CheckpointError like `load_weights`.
    """
    if path.suffix.lower() == ".safetensors":
        shapes, metadata = _read_safely(path, _read_safetensors_header)
        return CheckpointFile(
            _check_not_empty(path, _strip_prefixes(shapes)), metadata, lambda: load_weights(path)
        )
    content = _read_safely(path, load_content)
    state = _extract_weights(path, content)
    return CheckpointFile(_state_to_shapes(state), content, lambda: state)


def _read_safetensors_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """Shapes by key, and the metadata, whose values are text or JSON."""
    with safetensors.safe_open(path, "pt") as opened:
        names = opened.keys()  # safe_open has no other way to list them
        shapes = {name: tuple(opened.get_slice(name).get_shape()) for name in names}
        return shapes, {
            key: _parse_metadata_value(text) for key, text in (opened.metadata() or {}).items()
        }


def _parse_metadata_value(text: str) -> Any:
    with suppress(ValueError, RecursionError):
        return json.loads(text) if text[:1] in ("[", "{") else text
    return text


def load_weights(path: Path) -> StateDict:
    """The tensors of a .safetensors, .pth, .pt or .bin file, as float32 on the CPU.

    Raises CheckpointError if the file cannot be read, contains pickled code, or has no tensors.
    """
    return _extract_weights(path, _read_safely(path, load_content))


def _extract_weights(path: Path, content: Any) -> StateDict:
    return _check_not_empty(path, _strip_prefixes(find_tensors(content)))


def _check_not_empty(path: Path, found: dict[str, Content]) -> dict[str, Content]:
    if not found:
        raise CheckpointError(f"{path} contains no weights (no named tensors)")
    return found


def _read_safely(path: Path, opened: Callable[[Path], Content]) -> Content:
    try:
        return opened(path)
    except pickle.UnpicklingError as error:
        if "weights_only" in str(error).lower() or "unsupported" in str(error).lower():
            raise create_pickle_error(path) from None
        raise CheckpointError(f"{path} is not a checkpoint that torch can read") from None
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or 'cannot be read'}") from None
    except (RuntimeError, ValueError, EOFError, KeyError, IndexError, AttributeError, TypeError,
            safetensors.SafetensorError):  # fmt: skip
        raise CheckpointError(f"{path} is not a checkpoint that torch can read") from None


def load_content(path: Path) -> Any:
    """The content of a file, read without running code. Errors of torch and safetensors pass."""
    if path.suffix.lower() == ".safetensors":
        return load_file(path)
    with torch.serialization.safe_globals(SAFE_GLOBALS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pickle protocols, which do not matter here
        return torch.load(path, map_location="cpu", weights_only=True)


def _strip_prefixes(state: dict[str, Content]) -> dict[str, Content]:
    """The keys without the prefixes that all of them share, and with DenseNet's present names."""
    state = {OLD_DENSENET_PATTERN.sub(r"\1\2.", key): value for key, value in state.items()}
    for prefix in KEY_PREFIXES * 2:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def align_keys(state: StateDict, network: nn.Module) -> StateDict:
    """Rename the keys of trunk and classifier to those of the network.

    For example, mmpretrain saves `backbone.*` and `head.fc.*`.
    """
    wanted = network.state_dict().keys()
    for prefix in KEY_PREFIXES:
        stripped = {key.removeprefix(prefix): value for key, value in state.items()}
        if len(stripped.keys() & wanted) > len(state.keys() & wanted):
            state = stripped
        added = {f"{prefix}{key}": value for key, value in state.items()}
        if len(added.keys() & wanted) > len(state.keys() & wanted):
            state = added  # the network itself is wrapped
    for name in find_classifier_layers(network):
        if f"{name}.weight" not in state:
            others = (
                n for n in HEAD_NAMES if f"{n}.weight" in state and f"{n}.weight" not in wanted
            )
            old = _find_only_linear(name, state) or next(others, "head.fc")
            state = {_rename_key(key, old, name): value for key, value in state.items()}
    return state


def _find_only_linear(name: str, state: StateDict) -> str | None:
    """The linear layer of a classifier that is a Sequential, for example of dropout and linear."""
    inside = [key for key, value in state.items() if key.startswith(f"{name}.") and value.ndim > 1]
    return inside[0].removesuffix(".weight") if len(inside) == 1 else None


def _rename_key(key: str, old: str, new: str) -> str:
    return new + key.removeprefix(old) if key.startswith(f"{old}.") else key


def find_classifier_layers(network: nn.Module) -> tuple[str, ...]:
    """The names of a timm network's classifier layers."""
    named = getattr(network, "default_cfg", {}).get("classifier") or ()
    listed = (named,) if isinstance(named, str) else tuple(named)
    return listed or _find_last_linear(network)


def _find_last_linear(network: nn.Module) -> tuple[str, ...]:
    """The last linear layer, or the last convolution: the classifier in torchvision's networks."""
    for kind in (nn.Linear, nn.Conv2d):
        found = [name for name, module in network.named_modules() if isinstance(module, kind)]
        if found:
            return (found[-1],)
    return ()


def lacks_classifier(plain: nn.Module, state: StateDict) -> bool:
    """Whether the weights have all layers of a network but its classifier."""
    heads = tuple(f"{layer}." for layer in find_classifier_layers(plain))
    missing = plain.state_dict().keys() - state.keys()
    has_part = any(key.startswith(heads) for key in state)
    return bool(missing) and not has_part and all(key.startswith(heads) for key in missing)


def is_tscam_vit(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether these are the shapes of a TS-CAM transformer, whose head is a convolution."""
    return len(shapes.get("head.weight", ())) == 4 and len(shapes.get("pos_embed", ())) == 3


def has_same_shapes(network: nn.Module, state: StateDict) -> bool:
    """Whether a state has the keys and shapes of the network."""
    return _state_to_shapes(network.state_dict()) == _state_to_shapes(state)


def _state_to_shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def load_into_network(
    network: nn.Module, state: StateDict, path: Path, name: str, head_function: str = ""
) -> None:
    """Load the weights into the network; all keys and shapes must match.

    Raises CheckpointError that counts and names the keys that do not match. If these are only those
    of the classifier, `head_function` is its note: the lines that build another classifier.
    """
    has, wants = _state_to_shapes(state), _state_to_shapes(network.state_dict())
    shapes = [k for k in wants if k in has and has[k] != wants[k]]
    missing = [k for k in wants if k not in has and not k.endswith("num_batches_tracked")]
    unknown = [k for k in has if k not in wants]
    if missing or shapes or unknown:
        found = (
            _format_keys("missing", missing, len(wants)),
            _format_keys("unknown", unknown, len(has)),
            _format_keys(
                "with another shape",
                [f"{k} {_format_shape(has[k])}, not {_format_shape(wants[k])}" for k in shapes],
            ),
        )
        misfit = f"{path} does not fit {name}: {'; '.join(filter(None, found))}"
        head = _find_only_misfit(network, [*shapes, *missing, *unknown])
        if head is None or not head_function:
            raise CheckpointError(f"{misfit}. {_misfit_message(shapes, missing)}")
        error = CheckpointError(
            f"{misfit}. All but the classifier {head} fits; give it by the function below"
        )
        error.add_note(head_function)
        raise error
    try:
        network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} does not fit {name}: {reason}") from None


def _find_only_misfit(network: nn.Module, keys: list[str]) -> str | None:
    """The layer of the classifier, if all these keys are its own."""
    layers = find_classifier_layers(network)
    return next((la for la in layers if all(key.startswith(f"{la}.") for key in keys)), None)


def _format_keys(what: str, keys: list[str], total: int | None = None) -> str:
    of = f" of {total}" if total else ""
    more = ", …" if len(keys) > 3 else ""
    return f"{len(keys)}{of} keys {what} ({', '.join(keys[:3])}{more})" if keys else ""


def _format_shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _misfit_message(shapes: list[str], missing: list[str]) -> str:
    if any("pos_embed" in key for key in shapes):
        return "Try the --size of its training"
    if shapes and not missing:
        return "Try a smaller or larger variant of this architecture"
    return "It may be another architecture: `camcli models PATTERN` lists names for --model"
