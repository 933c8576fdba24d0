"""Read, write and compare run.json, without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from camcli.core.errors import UsageError, to_one_line
from camcli.io.files import write_file
from camcli.io.results import RESULTS_FILE, RUN_FILE

MAX_RUN_FILE_BYTES = 2**26  # a larger run.json is not read


def write_manifest(output: Path, manifest: Mapping[str, Any]) -> None:
    """Write run.json into the output folder. Raises OutputError."""
    text = json.dumps(manifest, indent=2, default=str)
    write_file(output / RUN_FILE, f"{text}\n".encode())


def compute_run_key(manifest: Mapping[str, Any]) -> str:
    """Compute a digest of what results depend on besides images: settings, weights, class names."""
    return sha256(
        json.dumps(extract_identity(manifest), sort_keys=True, default=str).encode()
    ).hexdigest()


def extract_identity(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, the weights, the class names and the transform that a run.json names."""
    model = manifest["model"]
    own = {name: model[name] for name in ("weights_sha256", "classes_sha256", "transform")}
    return {**manifest["settings"], **own}


def load_manifest(output: Path) -> dict[str, Any]:
    """Read the run.json of a folder; empty if the folder has no run.

    Raises UsageError for results without a run.json, because their settings are unknown.
    """
    try:
        path = output / RUN_FILE
        text = path.read_text("utf-8") if path.stat().st_size < MAX_RUN_FILE_BYTES else ""
        manifest = json.loads(text)
        extract_identity(manifest)  # fails if a part is missing
        return dict(manifest)
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        pass
    log = output / RESULTS_FILE
    if log.exists() and log.stat().st_size:
        raise UsageError(
            f"cannot resume: {to_one_line(output)} has results, but no {RUN_FILE} with their "
            "settings. Choose another --output, or replace the results with --overwrite"
        )
    return {}


def check_same_settings(
    output: Path, earlier: Mapping[str, Any], manifest: Mapping[str, Any]
) -> None:
    """Raise UsageError if the settings, weights or classes differ from the earlier run."""
    changes = list_identity_changes(earlier, manifest)
    if changes:
        raise UsageError(
            f"cannot resume: the run in {to_one_line(output)} has different settings "
            f"({'; '.join(changes)}). "
            "Choose another --output, or replace the run with --overwrite"
        )


def list_identity_changes(earlier: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[str]:
    """The first settings that differ between two run.json, each as a text for the user."""
    was, now = (
        json.loads(json.dumps(extract_identity(d), default=str)) for d in (earlier, manifest)
    )
    names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    return [_format_setting_change(name, was.get(name), now.get(name)) for name in names[:3]]


def _format_setting_change(name: str, old_value: object, new_value: object) -> str:
    if name.endswith("_sha256"):
        return f"different {name.removesuffix('_sha256')}"
    return to_one_line(f"{name} was {json.dumps(old_value)}, is {json.dumps(new_value)}")
