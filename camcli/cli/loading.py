"""Load the network that the options of a command choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from camcli.cli.collector import exempt_imported_objects, pause_collection
from camcli.cli.console import print_error, print_notice
from camcli.cli.options import ModelOptions
from camcli.engine.default_model import check_builtin_blocks, choose_default_model
from camcli.io.writers import SHEET
from camcli.methods.registry import Method

if TYPE_CHECKING:
    from camcli.engine.target_rules import Target
    from camcli.models.model import Model

MANY_CLASSES = 100  # more maps of one image are worth a notice


def choose_model_name(
    name: str | None,
    options: ModelOptions,
    methods: Sequence[Method],
    layer_specs: Sequence[str | None] = (None,),
) -> str | None:
    """The name as given; without name and checkpoint, the built-in network for methods and layers.

    Raises LayerError for a block that a built-in network does not have.
    """
    chosen = name if name or options.checkpoint else choose_default_model(methods, layer_specs)
    check_builtin_blocks(chosen, layer_specs)
    return chosen


def load_chosen_model(name: str | None, options: ModelOptions) -> Model:
    """Load a network by name or checkpoint, and print what camcli chose for the user.

    A start takes less time if torch is not imported before.
    """
    with pause_collection():
        from camcli.models.model import load_model

        exempt_imported_objects()
        model = load_model(
            name,
            checkpoint=options.checkpoint,
            label_file=options.labels,
            size=options.input_size,
            device=options.device,
            head=options.head,
            transform_overrides=options.transform_overrides,
            logits=options.logits,
        )
    print_notice(model.note)
    return model


def print_left_out(reason_by_method: Mapping[str, str]) -> None:
    """Print each named method that does not suit the network, and why."""
    for name, reason in reason_by_method.items():
        text = reason if reason.startswith(name) else f"{name}: {reason}"
        print_error(f"left out: {text}")


def limit_batch_size(target: Target) -> int | None:
    """One image at a time where each has very many maps, which wait in memory to be written."""
    return 1 if len(target.rules) > MANY_CLASSES else None


def print_many_classes_notice(target: Target, kinds: Sequence[str]) -> None:
    """Say beforehand how much a run computes and writes that explains very many classes."""
    count = len(target.rules)
    if count > MANY_CLASSES:
        files = f", and writes {count * sum(kind != SHEET for kind in kinds)} files"
        print_notice(
            f"{count} classes: camcli computes {count} maps of each image"
            f"{files if set(kinds) != {SHEET} else ''}; --target top:N or above:P chooses fewer"
        )
