"""Networks with the weights that timm, torchvision or the model hub have for them.

Knows nothing of files that a user names.
"""

from __future__ import annotations

import logging
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from timm.models import load_model_config_from_hf
from torch import nn

from camcli.core.errors import ModelError
from camcli.models.zoo.architectures import (
    BUILD_ERRORS,
    HUB_PREFIXES,
    TORCHVISION_PREFIX,
    InputSize,
    LoadedNetwork,
    check_model_name,
    create_network,
    find_transform,
)
from camcli.models.zoo.builtin import BUILTIN_NAMES

HUB_WEIGHTS_FILE_NAMES = ("model.safetensors", "pytorch_model.bin")


def load_pretrained(name: str, size: InputSize) -> LoadedNetwork:
    """A network with its published weights.

    Raises ModelError, naming --checkpoint, when they are neither here nor to be had.
    """
    check_model_name(name)
    if name.startswith(TORCHVISION_PREFIX):
        return _load_torchvision(name, size)
    repository = _find_repository(name)
    if not _is_cached(repository, HUB_WEIGHTS_FILE_NAMES) and not is_reachable(constants.ENDPOINT):
        raise ModelError(
            f"the weights of {name} are not on this machine and the model hub cannot be reached; "
            f"give them with --checkpoint FILE"
        )
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        network = create_network(name, size, pretrained=True)
    except (OSError, *BUILD_ERRORS) as error:
        raise _create_unavailable_error(name, error) from None
    # A repository of the hub says which of timm's architectures it holds, and of which classes.
    config = getattr(network, "pretrained_cfg", None) or {}
    plain = config.get("architecture") if name.startswith(HUB_PREFIXES) else None
    return LoadedNetwork(
        name,
        network,
        find_transform(name, network, size),
        _find_label_names(config),
        architecture=plain,
    )


def _create_unavailable_error(name: str, error: Exception) -> ModelError:
    reason = str(error).partition("\n")[0]
    return ModelError(
        f"the weights of {name} cannot be had ({reason}); give them with --checkpoint FILE"
    )


def _find_label_names(config: Any) -> tuple[str, ...] | None:
    names = config.get("label_names")
    return tuple(map(str, names)) if isinstance(names, list | tuple) and names else None


def create_structure(name: str, size: InputSize, class_count: int | None) -> nn.Module:
    """A network without its published weights: of the hub too, whose file of settings is needed."""
    options = {} if class_count is None else {"num_classes": class_count}
    if not name.startswith(HUB_PREFIXES):
        return create_network(name, size, **options)
    repository = _find_repository(name)
    if not _is_cached(repository, ("config.json",)) and not is_reachable(constants.ENDPOINT):
        raise ModelError(
            f"what {name} is cannot be asked: its settings are not on this machine and the model "
            f"hub cannot be reached; leave --model out, and the file may be recognised"
        )
    try:
        load_model_config_from_hf(str(repository))
        return create_network(name, size, **options)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"what {name} is cannot be asked: {reason}") from None


def _find_repository(name: str) -> str | None:
    """Where on the hub a model's weights are. Raises ModelError for what has none."""
    if name.startswith(HUB_PREFIXES):
        return name.partition(":")[2].partition("@")[0]
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ModelError(f"timm has no weights for {name}; give some with --checkpoint FILE")
    return config.hf_hub_id


def _is_cached(repository: str | None, names: tuple[str, ...]) -> bool:
    """Whether one of a repository's files is already in this machine's cache."""
    try:
        found = [try_to_load_from_cache(repository, name) for name in names] if repository else []
    except ValueError:  # no name that the hub could have
        return False
    return any(isinstance(path, str) for path in found)


def is_reachable(address: str) -> bool:
    """Whether a host's name resolves: clients would retry for most of a minute to find out."""
    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(key) for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    try:
        socket.getaddrinfo(urlparse(address).hostname, 443)
    except OSError:
        return False
    return True


def _load_torchvision(name: str, size: InputSize) -> LoadedNetwork:
    from torchvision import models

    weights: Any = models.get_model_weights(name.removeprefix(TORCHVISION_PREFIX)).DEFAULT
    if not _is_downloaded(weights) and not is_reachable(weights.url):
        raise ModelError(
            f"the weights of {name} are not on this machine and cannot be downloaded; "
            f"give them with --checkpoint FILE"
        )
    try:
        network = create_network(name, size, weights=weights, progress=False)
    except (OSError, URLError, *BUILD_ERRORS) as error:
        raise _create_unavailable_error(name, error) from None
    return LoadedNetwork(
        name, network, find_transform(name, network, size), tuple(weights.meta["categories"])
    )


def _is_downloaded(weights: Any) -> bool:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / str(weights.url).rpartition("/")[2]
    return file.is_file()


def can_load_offline(name: str) -> bool:
    """Whether a model can be used on this machine as it is: embedded, or in a cache."""
    if name.startswith(TORCHVISION_PREFIX):
        from torchvision import models

        with suppress(ValueError):
            return _is_downloaded(
                models.get_model_weights(name.removeprefix(TORCHVISION_PREFIX)).DEFAULT
            )
    config = timm.get_pretrained_cfg(name)
    return name in BUILTIN_NAMES or (
        config is not None and _is_cached(config.hf_hub_id, HUB_WEIGHTS_FILE_NAMES)
    )
