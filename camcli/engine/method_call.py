"""Call a method's function, and check what a user's own function does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from camcli.core.errors import CamcliError, MethodError
from camcli.engine.request import Request

# The shape that a method returns, by its `returns`.
RETURNED_DIMENSIONS = {"map": "BHW", "terms": "BCHW", "tokens": "BNN", "concepts": "BNHW"}


@torch.no_grad()
def call_method(request: Request, inputs: Sequence[Any], batch_size: int) -> Tensor:
    """Call a method with its tensors. Raises MethodError for a fault in a user's own method.

    A user's own method gets copies, so that it cannot change what the other methods read.
    """
    method = request.method
    if method.is_builtin:
        return method.function(*inputs, **request.options)
    try:
        found: Any = method.function(*map(_copy_input, inputs), **request.options)
    except (CamcliError, torch.OutOfMemoryError):
        raise
    except (Exception, SystemExit) as error:
        raise MethodError(f"{method.name} raised {type(error).__name__}: {error}") from error
    dimensions = RETURNED_DIMENSIONS[method.returns]
    if not _is_valid(found, len(dimensions), batch_size):
        kind = f"{found.dtype}" if isinstance(found, Tensor) else type(found).__name__
        shape = f" {tuple(found.shape)}" if isinstance(found, Tensor) else ""
        raise MethodError(
            f"{method.name} returned {kind}{shape}; it must return a tensor of real numbers "
            f"({','.join(dimensions)}) with B = {batch_size}"
        )
    result: Tensor = found if found.is_floating_point() else found.float()
    return result


def _copy_input(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    return [_copy_input(part) for part in value] if isinstance(value, list) else value


def _is_valid(found: Any, dimension_count: int, batch_size: int) -> bool:
    return (
        isinstance(found, Tensor)
        and found.layout == torch.strided
        and not found.is_meta
        and not found.is_complex()
        and found.ndim == dimension_count
        and len(found) == batch_size
        and found.numel() > 0
    )
