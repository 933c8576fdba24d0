"""Attention rows, attention matrices and their gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from camcli.core.types import Layer
from camcli.engine.providers.base import Pass
from camcli.engine.request import Request
from camcli.models.introspection import attention
from camcli.models.introspection.attention import AttentionMatrixReader, ClsRowReader
from camcli.models.model import Model


def _rows(seen: Pass, request: Request, _layer: Layer) -> Tensor:
    assert request.rows is not None
    return request.rows.stack_maps(seen.recorded.reduced_outputs)


def _matrix_names(request: Request) -> Iterable[str]:
    return request.matrices.hook_names if request.matrices else ()


def _matrices(seen: Pass, request: Request, _layer: Layer) -> list[Tensor]:
    assert request.matrices is not None
    outputs = [seen.recorded.get_output(name).detach() for name in request.matrices.hook_names]
    return request.matrices.pad_matrices(outputs, diagonal=1)


def _matrix_gradients(seen: Pass, request: Request, _layer: Layer) -> list[Tensor]:
    assert request.matrices is not None
    gradients = [seen.gradients[name] for name in request.matrices.hook_names]
    return request.matrices.pad_matrices(gradients, diagonal=0)


def _block_gradients(seen: Pass, request: Request, _layer: Layer) -> list[Tensor]:
    """The score read after each block, by that block's attention: one block of backward each."""
    assert request.matrices is not None
    assert request.reader is not None
    found: list[Tensor] = []
    for name, block in zip(request.matrices.hook_names, request.matrices.block_layers, strict=True):
        read = request.reader(seen.recorded.graph_outputs[block.name].float())
        tap = seen.recorded.graph_outputs[name]
        found += torch.autograd.grad(seen.summed(read), tap, retain_graph=True)
    return request.matrices.pad_matrices(found, diagonal=0)


def _matrices_and_blocks(request: Request) -> Iterable[str]:
    blocks = request.matrices.block_layers if request.matrices else ()
    return (*_matrix_names(request), *(block.name for block in blocks))


def _find_rows(model: Model) -> ClsRowReader | None:
    return attention.find_cls_row_reader(model.network, model.attention_modules, model.input_size)


def _find_matrices(model: Model) -> AttentionMatrixReader | None:
    return attention.find_matrix_reader(model.network, model.attention_modules, model.input_size)
