"""Which weights are on this machine, and whether others can be downloaded."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlparse

WEIGHTS_FILE_NAMES = ("model.safetensors", "pytorch_model.bin")  # in a repository of the hub


def is_in_hub_cache(repository: str | None, file_names: tuple[str, ...]) -> bool:
    """Whether the cache of the Hugging Face hub has one of a repository's files."""
    from huggingface_hub import try_to_load_from_cache

    if not repository:
        return False
    try:
        found = [try_to_load_from_cache(repository, name) for name in file_names]
    except ValueError:  # the hub allows no such repository name
        return False
    return any(isinstance(path, str) for path in found)


def is_reachable(address: str) -> bool:
    """Whether the host name of an address resolves.

    The download clients themselves would retry for most of a minute before they fail.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(key) for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    try:
        socket.getaddrinfo(urlparse(address).hostname, 443)
    except OSError:
        return False
    return True
