"""Turn any error in the code of a network into a ModelError that says what to do."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torch import nn

from camcli.core.errors import ModelError, UsageError, to_one_line

# What a network raises that expects something else than one tensor of images.
INPUT_ERRORS = (TypeError, LookupError, AttributeError, ValueError)


@contextmanager
def raise_model_error(name: str, network: nn.Module, size: tuple[int, int]) -> Iterator[None]:
    """Inside the context, any error becomes a ModelError of one line.

    A network with further inputs gets a note: the lines of a module that gives them.
    """
    try:
        yield
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        others = _list_further_inputs(network) if isinstance(error, TypeError) else []
        raise _create_error(name, error, size, others) from error


def _create_error(
    name: str, error: BaseException, size: tuple[int, int], others: list[str]
) -> ModelError:
    images = f"network(images) with images of shape (B,3,{size[0]},{size[1]})"
    if others:
        wrapped = ModelError(
            f"{name} needs {' and '.join(others)} besides images, but camcli calls {images}; "
            f"use a module that gives the other inputs"
        )
        wrapped.add_note(_write_wrapper(name, others))
        return wrapped
    reason = str(error).partition("\n")[0] or type(error).__name__
    text = f"{name} does not run on a {size[0]}x{size[1]} input: {reason}"
    return ModelError(f"{text}; camcli calls {images}" if isinstance(error, INPUT_ERRORS) else text)


def _list_further_inputs(network: nn.Module) -> list[str]:
    """The names of the inputs after the first that `forward` requires."""
    with suppress(TypeError, ValueError):
        named = inspect.signature(network.forward).parameters.values()
        required = [p for p in named if p.default is p.empty and p.kind not in (2, 4)]
        return [p.name for p in required[1:]]
    return []


def _write_wrapper(name: str, others: list[str]) -> str:
    """The lines of a module with one input, for `--model one_input:OneInput`."""
    module, _, function = name.partition(":")
    source, made = (
        (f"import {module}, torch", f"{module}.{function}()")
        if function
        else ("import torch", "...  # your network")
    )
    given = ", ".join(f"{other}=..." for other in others)
    return "\n".join(
        to_one_line(line)
        for line in (
            "# one_input.py: replace each ... by a value for the batch, then --model "
            "one_input:OneInput",
            source,
            "class OneInput(torch.nn.Module):",
            f"    def __init__(self): super().__init__(); self.inner = {made}",
            "    def forward(self, images):",
            f"        return self.inner(images, {given})",
        )
    )
