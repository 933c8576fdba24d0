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
from camcli.models.zoo import builtin as embedded
from camcli.models.zoo.architectures import (
    BUILDING,
    HUB,
    TORCHVISION,
    Built,
    Size,
    create,
    known,
    transform,
)

SAVED = ("model.safetensors", "pytorch_model.bin")


def pretrained(name: str, size: Size) -> Built:
    """A network with its published weights.

    Raises ModelError, naming --checkpoint, when they are neither here nor to be had.
    """
    known(name)
    if name.startswith(TORCHVISION):
        return _of_torchvision(name, size)
    repository = _repository(name)
    if not _cached(repository, SAVED) and not reachable(constants.ENDPOINT):
        raise ModelError(
            f"the weights of {name} are not on this machine and the model hub cannot be reached; "
            f"give them with --checkpoint FILE"
        )
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        network = create(name, size, pretrained=True)
    except (OSError, *BUILDING) as error:
        raise _cannot_be_had(name, error) from None
    # A repository of the hub says which of timm's architectures it holds, and of which classes.
    config = getattr(network, "pretrained_cfg", None) or {}
    plain = config.get("architecture") if name.startswith(HUB) else None
    return Built(name, network, transform(name, network, size), _labels(config), architecture=plain)


def _cannot_be_had(name: str, error: Exception) -> ModelError:
    reason = str(error).partition("\n")[0]
    return ModelError(
        f"the weights of {name} cannot be had ({reason}); give them with --checkpoint FILE"
    )


def _labels(config: Any) -> tuple[str, ...] | None:
    names = config.get("label_names")
    return tuple(map(str, names)) if isinstance(names, list | tuple) and names else None


def structure(name: str, size: Size, classes: int | None) -> nn.Module:
    """A network without its published weights: of the hub too, whose file of settings is needed."""
    options = {} if classes is None else {"num_classes": classes}
    if not name.startswith(HUB):
        return create(name, size, **options)
    repository = _repository(name)
    if not _cached(repository, ("config.json",)) and not reachable(constants.ENDPOINT):
        raise ModelError(
            f"what {name} is cannot be asked: its settings are not on this machine and the model "
            f"hub cannot be reached; leave --model out, and the file may be recognised"
        )
    try:
        load_model_config_from_hf(str(repository))
        return create(name, size, **options)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"what {name} is cannot be asked: {reason}") from None


def _repository(name: str) -> str | None:
    """Where on the hub a model's weights are. Raises ModelError for what has none."""
    if name.startswith(HUB):
        return name.partition(":")[2].partition("@")[0]
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise ModelError(f"timm has no weights for {name}; give some with --checkpoint FILE")
    return config.hf_hub_id


def _cached(repository: str | None, names: tuple[str, ...]) -> bool:
    """Whether one of a repository's files is already in this machine's cache."""
    try:
        found = [try_to_load_from_cache(repository, name) for name in names] if repository else []
    except ValueError:  # no name that the hub could have
        return False
    return any(isinstance(path, str) for path in found)


def reachable(address: str) -> bool:
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


def _of_torchvision(name: str, size: Size) -> Built:
    from torchvision import models

    weights: Any = models.get_model_weights(name.removeprefix(TORCHVISION)).DEFAULT
    if not _downloaded(weights) and not reachable(weights.url):
        raise ModelError(
            f"the weights of {name} are not on this machine and cannot be downloaded; "
            f"give them with --checkpoint FILE"
        )
    try:
        network = create(name, size, weights=weights, progress=False)
    except (OSError, URLError, *BUILDING) as error:
        raise _cannot_be_had(name, error) from None
    return Built(name, network, transform(name, network, size), tuple(weights.meta["categories"]))


def _downloaded(weights: Any) -> bool:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / str(weights.url).rpartition("/")[2]
    return file.is_file()


def loadable(name: str) -> bool:
    """Whether a model can be used on this machine as it is: embedded, or in a cache."""
    if name.startswith(TORCHVISION):
        from torchvision import models

        with suppress(ValueError):
            return _downloaded(models.get_model_weights(name.removeprefix(TORCHVISION)).DEFAULT)
    config = timm.get_pretrained_cfg(name)
    return name in embedded.NAMES or (config is not None and _cached(config.hf_hub_id, SAVED))
