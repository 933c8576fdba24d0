"""A run's run.json: what its results are made of, how far it came, and where the time went."""

from __future__ import annotations

import json
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
from camcli.core.errors import UsageError, one_line
from camcli.io import files
from camcli.io.results import FILE as LIST
from camcli.models.model import Model
from camcli.runs.config import Course, Job

FILE = "run.json"
SCHEMA_VERSION = 1
LARGEST = 2**26  # bytes of a run.json that is read
FAILURES = 1000  # that are listed; results.jsonl has all


def digest(network: nn.Module) -> str:
    """SHA-256 of a network's parameters and buffers: their names, shapes, types and values."""
    found = sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            values = tensor.detach().cpu().contiguous().flatten()
            found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            found.update(values.view(torch.uint8).numpy().data)
    return found.hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def of_model(model: Model, file: Path | None) -> dict[str, Any]:
    """What network it is; `file` has its weights, if there is one."""
    return {
        "name": model.name,
        "architecture": model.architecture,
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "classes": len(model.labels.names),
        "classes_sha256": sha256(
            "\n".join(model.labels.names).encode(errors="replace")
        ).hexdigest(),
        "weights_sha256": digest(model.network),
        "checkpoint": {"path": str(file), "sha256": digest_of_file(file)} if file else None,
        "transform": asdict(model.transform),
        "probabilities": model.output_activation,
    }


def begun(
    job: Job,
    model: Mapping[str, Any],
    settings: Mapping[str, Any],
    given: Sequence[str],
    images: int,
) -> dict[str, Any]:
    """What is known of a run before its first image."""
    packages = ("torch", "timm", "torchvision", "pillow", "numpy")
    return {
        "schema_version": SCHEMA_VERSION,
        "state": "running",
        "arguments": list(given),
        "started": _now(),
        "versions": {"camcli": __version__, "python": platform.python_version()}
        | {name: version(name) for name in packages},
        "device": _device(job.model.device),
        "model": dict(model),
        "methods": [
            {
                "method": request.method.name,
                "layers": [layer.name for layer in request.read],
                "options": {**request.method.options, **request.options},
            }
            for request in job.requests
        ],
        "settings": dict(settings),
        "batch_size": job.batch_size,
        "workers": job.workers,
        "compiled": job.compiled,
        "images": images,
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _device(device: torch.device) -> dict[str, Any]:
    if device.type == "cuda":
        return {"type": "cuda", "name": torch.cuda.get_device_name(device)}
    return {"type": device.type, "threads": torch.get_num_threads()}


def ended(
    course: Course, counts: Mapping[str, Any], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """What is known besides once it has ended, however it did."""
    return {
        "finished": _now(),
        "precision": course.precision,
        "images_at_a_time": course.fits,
        "batch_norms_folded": course.folded,
        "notes": course.notes,
        "counts": dict(counts),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def write(output: Path, document: Mapping[str, Any]) -> None:
    """Put a run's document into its folder. Raises OutputError."""
    text = json.dumps(document, indent=2, default=str)
    files.write(output / FILE, f"{text}\n".encode())


def remove(output: Path) -> None:
    """Take away the document of a run that has no results."""
    with suppress(OSError):
        (output / FILE).unlink()


def run_key(document: Mapping[str, Any]) -> str:
    """A digest of all that results are made of besides images: settings, weights, class names."""
    return sha256(json.dumps(_made_of(document), sort_keys=True, default=str).encode()).hexdigest()


def _made_of(document: Mapping[str, Any]) -> dict[str, Any]:
    model = document["model"]
    own = {name: model[name] for name in ("weights_sha256", "classes_sha256", "transform")}
    return {**document["settings"], **own}


def read(output: Path) -> dict[str, Any]:
    """The document of the run in a folder; empty where no run is. Raises UsageError.

    A list of results without it cannot be gone on with: nobody knows what they are made of.
    """
    try:
        path = output / FILE
        text = path.read_text("utf-8") if path.stat().st_size < LARGEST else ""
        document = json.loads(text)
        _made_of(document)
        return dict(document)
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        pass
    if (output / LIST).exists() and (output / LIST).stat().st_size:
        raise UsageError(
            f"--resume: {one_line(output)} has results, but no {FILE} that says what they are made"
            " of; name another --output, or --overwrite them"
        )
    return {}


def refuse_another(output: Path, earlier: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    """Results of other settings, weights or classes are not mixed. Raises UsageError."""
    was, now = (json.loads(json.dumps(_made_of(d), default=str)) for d in (earlier, document))
    names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    if names:
        told = "; ".join(_told(name, was.get(name), now.get(name)) for name in names[:3])
        raise UsageError(
            f"--resume: {one_line(output)} holds a run of other settings ({told}); name another"
            " --output, or --overwrite it"
        )


def _told(name: str, was: object, now: object) -> str:
    if name.endswith("_sha256"):
        return f"other {name.removesuffix('_sha256')}"
    return one_line(f"{name} was {json.dumps(was)}, is {json.dumps(now)}")
