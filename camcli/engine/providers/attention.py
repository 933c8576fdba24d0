"""Attention rows, attention matrices and their gradients."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from camcli.core.types import Layer
from camcli.engine.providers.base import PassState
from camcli.engine.request import Request
from camcli.models.introspection.attention_matrices import AttentionMatrixReader, find_matrix_reader
from camcli.models.introspection.cls_attention import ClsRowReader, find_cls_row_reader
from camcli.models.model import Model


def provide_attention(state: PassState, request: Request, _layer: Layer) -> Tensor:
    assert request.rows is not None
    return request.rows.stack_maps(state.recording.reduced_outputs)


def list_matrix_names(request: Request) -> Iterable[str]:
    return request.matrices.hook_names if request.matrices else ()


def provide_matrices(state: PassState, request: Request, _layer: Layer) -> list[Tensor]:
    assert request.matrices is not None
    outputs = [state.recording.get_output(name).detach() for name in request.matrices.hook_names]
    return request.matrices.pad_matrices(outputs, diagonal=1)


def provide_matrix_gradients(state: PassState, request: Request, _layer: Layer) -> list[Tensor]:
    assert request.matrices is not None
    gradients = [state.gradients[name] for name in request.matrices.hook_names]
    return request.matrices.pad_matrices(gradients, diagonal=0)


def provide_block_gradients(state: PassState, request: Request, _layer: Layer) -> list[Tensor]:
    """The score read after each block, by that block's attention: one block of backward each."""
    assert request.matrices is not None
    assert request.reader is not None
    found: list[Tensor] = []
    for name, block in zip(request.matrices.hook_names, request.matrices.block_layers, strict=True):
        read = request.reader(state.recording.graph_outputs[block.name].float())
        tap = state.recording.graph_outputs[name]
        found += torch.autograd.grad(state.sum_scores(read), tap, retain_graph=True)
    return request.matrices.pad_matrices(found, diagonal=0)


def list_matrix_and_block_names(request: Request) -> Iterable[str]:
    blocks = request.matrices.block_layers if request.matrices else ()
    return (*list_matrix_names(request), *(block.name for block in blocks))


def find_model_row_reader(model: Model) -> ClsRowReader | None:
    return find_cls_row_reader(model.network, model.attention_modules, model.input_size)


def find_model_matrix_reader(model: Model) -> AttentionMatrixReader | None:
    return find_matrix_reader(model.network, model.attention_modules, model.input_size)
