"""The commands of camcli, each imported only when it runs or shows its own help."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from camcli.cli.option_groups import expand_option_groups
from camcli.cli.strict_command import StrictCommand
from camcli.core.errors import UsageError
from camcli.io.discovery import IMAGE_SUFFIXES

# The order and the lines of the main help page; a test compares them with each command's own help.
COMMAND_SUMMARIES: Mapping[str, str] = {
    "explain": "Draw heatmaps and boxes that show what the network looked at.",
    "compare": "Compare methods, layers or models side by side on the same images.",
    "figure": "Draw one sheet of many images: layers, methods, classes or models side by side.",
    "merge": "Join the shards of a run that several processes made.",
    "report": "Write one HTML page of a run: filter, sort, and change colours and threshold.",
    "export": "Hand the boxes of a run on to COCO, YOLO, VOC or Label Studio.",
    "layers": "List the layers of a model that can be explained.",
    "methods": "List the methods: inputs, network types, cost and paper.",
    "models": "List model names: built-in, timm, torchvision.",
    "doctor": "Check the installation: versions, devices, weights and folders.",
    "evaluate": "Measure maps against ground truth, or against the network itself.",
    "diff": "Compare two runs of explain: classes, scores, maps and boxes; for CI.",
    "train": "Train a head that makes maps: TS-CAM for a ViT, CAM for a CNN.",
}


def load_command(name: str) -> TyperCommand | TyperGroup:
    """Import a command's module and build its command line.

    The module `camcli.cli.commands.NAME` holds either a Typer application `app` with subcommands,
    or a function of the command's name.
    """
    module = import_module(f"camcli.cli.commands.{name}")
    if hasattr(module, "app"):
        return get_group(module.app)
    single = typer.Typer(add_completion=False)
    single.command(name, cls=StrictCommand)(expand_option_groups(getattr(module, name)))
    command = get_command(single)
    assert isinstance(command, TyperCommand)
    return command


class LazyCommand(TyperCommand):
    """A command's name and summary; the real command takes over when it is invoked."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: Any = None,
        **extra: Any,
    ) -> Any:
        """Import the real command and make its context, so that it reads `args` and runs."""
        assert self.name is not None
        return load_command(self.name).make_context(info_name, args, parent, **extra)


class LazyGroup(TyperGroup):
    """The commands of the main help page."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, summary in COMMAND_SUMMARIES.items():
            self.add_command(LazyCommand(name, help=summary))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command. Raises UsageError if an image stands in its place."""
        if args[0] not in self.commands and _names_images(args[0]) and not ctx.resilient_parsing:
            call = shlex.join(["camcli", "explain", *args])
            raise UsageError(f"{args[0]} is not a command; to explain it, write: {call}")
        return super().resolve_command(ctx, args)

    def get_params(self, ctx: Any) -> Any:
        """The options of camcli itself, all of them flags.

        Typer imports pydantic to convert the default None of `--help`, but not a bool.
        """
        options = super().get_params(ctx)
        for option in options:
            option.default = bool(option.default)
        return options


def _names_images(text: str) -> bool:
    """Whether a text names a file, a folder, or images that may be missing."""
    return os.path.exists(text) or Path(text).suffix.lower() in IMAGE_SUFFIXES
