"""Load the network that the options of a command choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from camcli.cli.console import print_notice
from camcli.cli.options import ModelOptions
from camcli.methods.registry import Method

if TYPE_CHECKING:
    from camcli.models.model import Model


def choose_model_name(
    name: str | None, options: ModelOptions, methods: Sequence[Method]
) -> str | None:
    """The name as given; without name and checkpoint, the built-in network for these methods."""
    from camcli.engine.plan import choose_default_model

    return name if name or options.checkpoint else choose_default_model(methods)


def load_chosen_model(name: str | None, options: ModelOptions) -> Model:
    """Load a network by name or checkpoint, and print what camcli chose for the user."""
    from camcli.models.model import load_model

    model = load_model(
        name,
        checkpoint=options.checkpoint,
        label_file=options.labels,
        size=options.input_size,
        device=options.device,
        output_activation=options.head,
        transform_overrides=options.transform_overrides,
        logits=options.logits,
    )
    print_notice(model.note)
    return model
