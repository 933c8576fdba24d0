"""Attention rows, attention matrices and their gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from camcli.core.types import Layer
from camcli.engine.providers.base import Pass
from camcli.engine.request import Request
from camcli.models.introspection import attention
from camcli.models.introspection.attention import ClassRows, Matrices
from camcli.models.model import Model


def _rows(seen: Pass, request: Request, _layer: Layer) -> Tensor:
    assert request.rows is not None
    return request.rows.stack(seen.recorded.readings)


def _matrix_names(request: Request) -> Iterable[str]:
    return request.matrices.names if request.matrices else ()


def _matrices(seen: Pass, request: Request, _layer: Layer) -> list[Tensor]:
    assert request.matrices is not None
    outputs = [seen.recorded.output(name).detach() for name in request.matrices.names]
    return request.matrices.filled(outputs, diagonal=1)


def _matrix_gradients(seen: Pass, request: Request, _layer: Layer) -> list[Tensor]:
    assert request.matrices is not None
    gradients = [seen.gradients[name] for name in request.matrices.names]
    return request.matrices.filled(gradients, diagonal=0)


def _block_gradients(seen: Pass, request: Request, _layer: Layer) -> list[Tensor]:
    """The score read after each block, by that block's attention: one block of backward each."""
    assert request.matrices is not None
    assert request.reader is not None
    found: list[Tensor] = []
    for name, block in zip(request.matrices.names, request.matrices.blocks, strict=True):
        read = request.reader(seen.recorded.taps[block.name].float())
        tap = seen.recorded.taps[name]
        found += torch.autograd.grad(seen.summed(read), tap, retain_graph=True)
    return request.matrices.filled(found, diagonal=0)


def _matrices_and_blocks(request: Request) -> Iterable[str]:
    blocks = request.matrices.blocks if request.matrices else ()
    return (*_matrix_names(request), *(block.name for block in blocks))


def _find_rows(model: Model) -> ClassRows | None:
    return attention.rows(model.network, model.attention, model.size)


def _find_matrices(model: Model) -> Matrices | None:
    return attention.matrices(model.network, model.attention, model.size)
