"""Write run.json: what the results depend on, how the run ended, where the time went."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import file_digest, sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from camcli import __version__
from camcli.io.results import RUN_FILE
from camcli.models.model import Model
from camcli.runs.run_config import RunConfig, RunState

SCHEMA_VERSION = 1


def compute_weights_digest(network: nn.Module) -> str:
    """Compute the SHA-256 of a network's parameters and buffers: names, shapes, types, values."""
    digest = sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            values = tensor.detach().cpu().contiguous().flatten()
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def compute_file_digest(path: Path) -> str:
    """Compute the SHA-256 of a file, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def create_model_entry(model: Model, weights_file: Path | None) -> dict[str, Any]:
    """Describe the network and, if there is one, its weights file."""
    return {
        "name": model.name,
        "architecture": model.architecture,
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "classes": len(model.labels.names),
        "classes_sha256": sha256(
            "\n".join(model.labels.names).encode(errors="replace")
        ).hexdigest(),
        "weights_sha256": compute_weights_digest(model.network),
        "checkpoint": {"path": str(weights_file), "sha256": compute_file_digest(weights_file)}
        if weights_file
        else None,
        "transform": asdict(model.transform),
        "probabilities": model.output_kind,
    }


def create_manifest(
    config: RunConfig,
    model: Mapping[str, Any],
    settings: Mapping[str, Any],
    arguments: Sequence[str],
    image_count: int,
) -> dict[str, Any]:
    """Create the content of run.json before the first image."""
    packages = ("torch", "timm", "torchvision", "pillow", "numpy")
    return {
        "schema_version": SCHEMA_VERSION,
        "state": "running",
        "arguments": list(arguments),
        "started": _format_current_time(),
        "versions": {"camcli": __version__, "python": platform.python_version()}
        | {name: version(name) for name in packages},
        "device": _create_device_entry(config.model.device),
        "model": dict(model),
        "methods": [
            {
                "method": request.method.name,
                "layers": [layer.name for layer in request.source_layers],
                "options": {**request.method.options, **request.options},
                **({"refine": request.refiner.spec} if request.refiner else {}),
            }
            for request in config.requests
        ],
        "settings": dict(settings),
        "batch_size": config.batch_size,
        "workers": config.workers,
        "compiled": config.is_compiled,
        "images": image_count,
    }


def _format_current_time() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _create_device_entry(device: torch.device) -> dict[str, Any]:
    if device.type == "cuda":
        return {"type": "cuda", "name": torch.cuda.get_device_name(device)}
    return {"type": device.type, "threads": torch.get_num_threads()}


def create_manifest_ending(state: RunState, counts: Mapping[str, Any]) -> dict[str, Any]:
    """Create what run.json gets in addition when the run ends."""
    return {
        "finished": _format_current_time(),
        "precision": state.precision,
        "images_at_a_time": state.max_images_at_once,
        "batch_norms_folded": state.folded_norm_count,
        "notes": state.notes,
        "counts": dict(counts),
        "seconds": {name: round(value, 3) for name, value in state.timer.seconds.items()},
    }


def remove_manifest(output: Path) -> None:
    """Delete the run.json of a run that has no results."""
    with suppress(OSError):
        (output / RUN_FILE).unlink()
