"""What camcli tells the user about a file that it recognised, or that it cannot load alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from camcli.core.errors import ModelError
from camcli.core.types import Transform
from camcli.models.zoo.libraries import find_library
from camcli.models.zoo.metadata import CheckpointMetadata, read_settings_file
from camcli.models.zoo.network_settings import format_normalization
from camcli.models.zoo.recognition import ArchitectureMatch

HUGGING_FACE_FUNCTION = """# hf_network.py, then: --model hf_network:network
from transformers import AutoModelForImageClassification
def network():
    return AutoModelForImageClassification.from_pretrained({folder!r})"""


def check_not_transformers(path: Path) -> None:
    """Raise ModelError, with the function that loads it, for a model of transformers."""
    table = read_settings_file(path.parent / "config.json")
    names = table.get("architectures") if isinstance(table, dict) else None
    if isinstance(names, list) and names and isinstance(names[0], str):
        error = ModelError(
            f"{path} is a Hugging Face model, {names[0][:99]}; load it by the function below"
        )
        error.add_note(HUGGING_FACE_FUNCTION.format(folder=str(path.parent)))
        raise error


def format_names(names: Sequence[str]) -> str:
    """The first six names."""
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more


def describe_recognition(
    path: Path, found: ArchitectureMatch, transform: Transform, metadata: CheckpointMetadata
) -> str:
    """Name the recognised network, and others whose images would need another transform."""
    others = [name for name in found.candidates if name != found.name]
    classes = (
        "without a classifier" if found.class_count is None else f"of {found.class_count} classes"
    )
    note = f"{path.name} is a {found.name} {classes}"
    if found.rare_names:
        note += (
            f" (rarely it is {format_names(found.rare_names)}, of the same shapes: if so, "
            f"use --model {found.rare_names[0]} --checkpoint)"
        )
    if found.extra_parts:
        note += f" (parts outside {found.prefix} are ignored: {format_names(found.extra_parts)})"
    differ = [
        name
        for name in others
        if _format_library_normalization(name, transform) != format_normalization(transform)
    ]
    if not differ or {"mean", "std"} <= metadata.transform_settings.keys():
        return note
    other = find_library(differ[0]).find_transform(differ[0], None)
    other = other.with_channels(transform.channel_count)
    field = "mean" if other.mean != transform.mean else "std"
    own, its = (_format_values(getattr(each, field)) for each in (transform, other))
    return (
        f"{note}, {field} {own}. It may also be {differ[0]}, {field} {its}: if so, "
        f"write --model {differ[0]} --checkpoint"
    )


def _format_values(values: Sequence[float]) -> str:
    shown = [f"{value:.4g}" for value in values]
    return ",".join(shown if len({*shown}) > 1 else shown[:1])


def _format_library_normalization(name: str, like: Transform) -> str:
    """The normalisation that the library has for a network, for as many channels."""
    own = find_library(name).find_transform(name, None)
    return format_normalization(own.with_channels(like.channel_count))
