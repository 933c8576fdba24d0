"""Read the attention of class tokens: a network such as MCTformer has a token for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from camcli.core.types import Layer
from camcli.models.introspection.attention_modules import AttentionModule, find_chosen_attention
from camcli.models.introspection.cls_attention import qkv_to_rows
from camcli.models.introspection.hooks import TensorFunction


@dataclass(frozen=True, slots=True)
class ClassTokens:
    """The class tokens of a network, which has this record as its attribute `class_tokens`.

    They are the first `count` tokens, in the order of the classes. Its authors make maps from the
    last `block_count` blocks. `patch_layer` outputs a map per class (B,K,h,w); it is "" in a
    network without one. The fused map is the product of attention and class map, to the `power`.
    """

    count: int
    block_count: int
    patch_layer: str = ""
    power: float = 1.0


@dataclass(frozen=True, slots=True)
class ClassTokenReader:
    """Reads the attention of the class tokens to the patches in the blocks of `modules`.

    `all_modules` are those of the whole network.
    """

    tokens: ClassTokens
    modules: tuple[AttentionModule, ...]
    all_modules: tuple[AttentionModule, ...]

    def select_blocks(self, layers: Sequence[Layer]) -> ClassTokenReader:
        """Read only the attention of the blocks of these layers. Raises MethodError."""
        names = [module.name for module in self.all_modules]
        blocks = [module.block_layer for module in self.all_modules]
        chosen = find_chosen_attention(layers, names, blocks)
        return replace(self, modules=tuple(self.all_modules[n] for n in chosen))

    @property
    def block_layers(self) -> tuple[Layer, ...]:
        """The outputs of the blocks."""
        return tuple(module.block_layer for module in self.modules)

    @property
    def reducers(self) -> dict[str, TensorFunction]:
        """For each block, the module to record and the reduction of its output to (B,K,H*W)."""
        return {
            f"{module.name}.qkv": partial(_read_class_rows, module.module, self.tokens.count)
            for module in self.modules
        }

    def stack_maps(self, reduced_outputs: Mapping[str, Tensor]) -> Tensor:
        """The rows of all classes in each block as maps (B,L,K,H,W), averaged over heads."""
        rows = torch.stack([reduced_outputs[name] for name in self.reducers], dim=1)
        return rows.reshape(*rows.shape[:3], *self.block_layers[0].grid)


def _read_class_rows(attention: Any, count: int, qkv: Tensor) -> Tensor:
    return qkv_to_rows(attention, count, slice(0, count), qkv).mean(dim=1)


def find_class_tokens(network: nn.Module) -> ClassTokens | None:
    """The class tokens that a network declares; None for a network with one CLS token or none."""
    found = getattr(network, "class_tokens", None)
    return found if isinstance(found, ClassTokens) else None


def find_class_token_reader(
    network: nn.Module, modules: Sequence[AttentionModule]
) -> ClassTokenReader | None:
    """A reader of the blocks from which the authors make maps; None without class tokens."""
    tokens = find_class_tokens(network)
    if tokens is None or not modules:
        return None
    return ClassTokenReader(tokens, tuple(modules[-tokens.block_count :]), tuple(modules))
