"""`camcli doctor`: check the installation."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from camcli import __version__
from camcli.cli.console import print_data
from camcli.core.errors import CamcliError


def doctor() -> int:
    """Check the installation: versions, devices, weights and folders."""
    checks: tuple[Callable[[], str], ...] = (_torch, _torchvision, _timm, _weights, _folders)
    print_data(f"ok    camcli {__version__}, Python {platform.python_version()}")
    status = 0
    for check in checks:
        try:
            print_data(f"ok    {check()}")
        except (ImportError, OSError, RuntimeError, CamcliError, PackageNotFoundError) as error:
            status = 1
            print_data(f"FAIL  {check.__name__.strip('_')}: {str(error).partition(chr(10))[0]}")
    return status


def _torch() -> str:
    import torch

    return f"torch {torch.__version__}; devices: {', '.join(_iter_devices())}"


def _iter_devices() -> Iterator[str]:
    import torch

    yield f"cpu ({os.cpu_count()} cores)"
    if torch.backends.mps.is_available():
        yield "mps"
    for i in range(torch.cuda.device_count()):
        yield f"cuda:{i} ({torch.cuda.get_device_name(i)})"


def _torchvision() -> str:
    """Check that torchvision loads: its compiled code works with one release of torch only."""
    wanted = next((r for r in requires("torchvision") or [] if re.match(r"torch\b", r)), "torch")
    try:
        import torchvision
    except (RuntimeError, ImportError, OSError) as error:
        raise RuntimeError(
            f"torchvision {version('torchvision')} needs {wanted}, but torch is "
            f"{version('torch')}; install both from the same place ({error})"
        ) from None
    return f"torchvision {torchvision.__version__} (built for {wanted})"


def _timm() -> str:
    import timm

    return f"timm {timm.__version__}: {len(timm.list_models())} models"


def _weights() -> str:
    from camcli.models.model import load_model
    from camcli.models.zoo.builtin_names import BUILTIN_NAMES

    loaded = [load_model(name, device="cpu") for name in BUILTIN_NAMES]
    return f"embedded weights: {', '.join(model.name for model in loaded)}"


def _folders() -> str:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    for folder in (cache, Path.cwd()):
        nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        if not os.access(nearest, os.W_OK):
            raise OSError(f"{folder} is not writable")
    return f"writable: {cache} (weights), {Path.cwd()} (here)"
