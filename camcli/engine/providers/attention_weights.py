"""The CLS token's attention, whole attention matrices, and how the score depends on these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from camcli.engine.providers.base import ModelPart, PassNeeds, Provider
from camcli.engine.providers.provider_registry import register_provider

if TYPE_CHECKING:
    from torch import Tensor

    from camcli.core.types import Layer
    from camcli.engine.pass_state import PassState
    from camcli.engine.request import Request
    from camcli.models.introspection.attention_matrices import AttentionMatrixReader
    from camcli.models.introspection.cls_attention import ClsRowReader
    from camcli.models.model import Model


def _find_cls_rows(model: Model) -> ClsRowReader | None:
    from camcli.models.introspection.class_token_attention import find_class_tokens
    from camcli.models.introspection.cls_attention import find_cls_row_reader

    if find_class_tokens(model.network):  # its first token is that of the first class
        return None
    return find_cls_row_reader(model.network, model.attention_modules, model.input_size)


def _find_matrices(model: Model) -> AttentionMatrixReader | None:
    from camcli.models.introspection.attention_matrices import find_matrix_reader

    return find_matrix_reader(model.network, model.attention_modules, model.input_size)


def _find_block_reader(model: Model) -> Callable[[Tensor], Tensor] | None:
    from camcli.models.introspection.heads import find_block_reader

    if model.output_kind == "similarity":  # a classifier does not compute these outputs
        return None
    return find_block_reader(model.network, len(model.labels.names))


def _describe_missing_attention(model: Model) -> str:
    from camcli.models.introspection.attention_modules import unsupported_attention_message
    from camcli.models.introspection.class_token_attention import find_class_tokens

    if find_class_tokens(model.network):
        return f"one CLS token; {model.name} has a token for each class, which mctformer follows"
    kind = unsupported_attention_message(model.attention_modules)
    return f"attention over all patch tokens; {model.name} has {kind}"


CLS_ROWS = ModelPart(
    _find_cls_rows,
    _describe_missing_attention,
    select_blocks=lambda reader, layers: reader.select_blocks(layers),
)
ATTENTION_MATRICES = ModelPart(
    _find_matrices,
    _describe_missing_attention,
    select_blocks=lambda reader, layers: reader.select_blocks(layers),
)
BLOCK_READER = ModelPart(
    _find_block_reader,
    lambda model: (
        f"a linear classifier after a norm of the tokens; {model.name} has no such classifier"
    ),
)


def provide_attention(state: PassState, request: Request, _layer: Layer) -> Tensor:
    """The CLS token's row of each block's attention, averaged over heads: (B,L,h,w)."""
    return request.get_part(CLS_ROWS).stack_maps(state.recording.reduced_outputs)


def provide_head_attention(state: PassState, request: Request, _layer: Layer) -> list[Tensor]:
    """The CLS token's row of each block's attention, for each head: (B,heads,h,w)."""
    return request.get_part(CLS_ROWS).list_head_maps(state.recording.reduced_outputs)


def provide_matrices(state: PassState, request: Request, _layer: Layer) -> list[Tensor]:
    """The attention matrix of each block: (B,heads,N,N)."""
    reader = request.get_part(ATTENTION_MATRICES)
    outputs = [state.recording.get_output(name).detach() for name in reader.hook_names]
    return reader.pad_matrices(outputs, diagonal=1)


def provide_matrix_gradients(state: PassState, request: Request, _layer: Layer) -> list[Tensor]:
    """The gradient of the score by the attention matrix of each block: (B,heads,N,N)."""
    reader = request.get_part(ATTENTION_MATRICES)
    gradients = [state.gradients[name] for name in reader.hook_names]
    return reader.pad_matrices(gradients, diagonal=0)


def provide_block_gradients(state: PassState, request: Request, _layer: Layer) -> list[Tensor]:
    """For each block, the gradient by its attention of the score read after it: (B,heads,N,N).

    Each gradient takes a backward pass through one block.
    """
    import torch

    reader = request.get_part(ATTENTION_MATRICES)
    read_logits = request.get_part(BLOCK_READER)
    outputs = state.recording.graph_outputs
    gradients: list[Tensor] = []
    for name, block in zip(reader.hook_names, reader.block_layers, strict=True):
        score = state.sum_scores(read_logits(outputs[block.name].float()))
        gradients += torch.autograd.grad(score, outputs[name], retain_graph=True)
    return reader.pad_matrices(gradients, diagonal=0)


def _collect_attention_maps(state: PassState, request: Request) -> Mapping[str, Tensor]:
    """The row of each block, and the sum of all."""
    reader = request.get_part(CLS_ROWS)
    return name_block_rows(reader.block_layers, reader.stack_maps(state.recording.reduced_outputs))


def name_block_rows(blocks: Sequence[Layer], rows: Tensor) -> dict[str, Tensor]:
    """The row of each block (B,L,h,w) by the block's name, and the sum of all: (B,h,w) each."""
    by_block = {block.name: rows[:, i] for i, block in enumerate(blocks)}
    return {**by_block, "attention": rows.sum(dim=1)}


def _collect_head_maps(state: PassState, request: Request) -> Mapping[str, Tensor]:
    """The row of each block for the chosen head, and their sum; of a single block also each head.

    A user's own method may mean something else by `head`.
    """
    from camcli.methods.attention import select_head

    reader = request.get_part(CLS_ROWS)
    heads = reader.list_head_maps(state.recording.reduced_outputs)
    head = request.find_option("head", "mean") if request.method.is_builtin else "mean"
    blocks = [block.name for block in reader.block_layers]
    rows = {name: select_head(maps, head) for name, maps in zip(blocks, heads, strict=True)}
    single = heads[0].unbind(dim=1) if len(heads) == 1 and head == "mean" else ()
    each = {f"head {number}": maps for number, maps in enumerate(single)}
    return {**rows, "attention": reduce(add, rows.values()), **each}


def _list_row_needs(request: Request) -> PassNeeds:
    reader = request.get_part(CLS_ROWS)
    return PassNeeds(reducers=reader.reducers, fused_modules=reader.fused_modules)


def list_unfused_needs(request: Request) -> PassNeeds:
    """Ask for attention without the fused kernel, which hides the matrices."""
    return PassNeeds(fused_modules=request.get_part(ATTENTION_MATRICES).fused_modules)


def _list_matrix_needs(request: Request) -> PassNeeds:
    names = request.get_part(ATTENTION_MATRICES).hook_names
    return list_unfused_needs(request) | PassNeeds(copied_layers=names)


def _list_matrix_gradient_needs(request: Request) -> PassNeeds:
    names = request.get_part(ATTENTION_MATRICES).hook_names
    return list_unfused_needs(request) | PassNeeds(graph_layers=names)


def _list_block_gradient_needs(request: Request) -> PassNeeds:
    blocks = tuple(block.name for block in request.get_part(ATTENTION_MATRICES).block_layers)
    return _list_matrix_gradient_needs(request) | PassNeeds(graph_layers=blocks)


def _list_attention_blocks(request: Request) -> tuple[Layer, ...]:
    """The blocks whose attention matrices are read."""
    return request.get_part(ATTENTION_MATRICES).block_layers


register_provider(
    Provider(
        "attention",
        provide_attention,
        cost="attention",
        model_parts=(CLS_ROWS,),
        list_needs=_list_row_needs,
        list_source_layers=lambda request: request.get_part(CLS_ROWS).block_layers,
        collect_component_maps=_collect_attention_maps,
    )
)
register_provider(
    Provider(
        "head_attention",
        provide_head_attention,
        cost="attention",
        model_parts=(CLS_ROWS,),
        list_needs=_list_row_needs,
        list_source_layers=lambda request: request.get_part(CLS_ROWS).block_layers,
        collect_component_maps=_collect_head_maps,
    )
)
register_provider(
    Provider(
        "matrices",
        provide_matrices,
        cost="attention",
        reads_cls=True,
        model_parts=(ATTENTION_MATRICES,),
        list_needs=_list_matrix_needs,
        list_source_layers=_list_attention_blocks,
    )
)
register_provider(
    Provider(
        "matrix_gradients",
        provide_matrix_gradients,
        cost="gradient",
        class_specific=True,
        reads_cls=True,
        model_parts=(ATTENTION_MATRICES,),
        list_needs=_list_matrix_gradient_needs,
        list_source_layers=_list_attention_blocks,
    )
)
register_provider(
    Provider(
        "block_gradients",
        provide_block_gradients,
        cost="gradient",
        class_specific=True,
        reads_cls=True,
        model_parts=(ATTENTION_MATRICES, BLOCK_READER),
        list_needs=_list_block_gradient_needs,
        list_source_layers=_list_attention_blocks,
    )
)
