"""A request: one method on given layers, with what it reads of the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from camcli.core.types import Layer
from camcli.engine.fusion import Fusion
from camcli.methods.registry import Method
from camcli.models.introspection.attention_matrices import AttentionMatrixReader
from camcli.models.introspection.cls_attention import ClsRowReader
from camcli.models.introspection.heads import ClassifierHead
from camcli.models.introspection.hooks import BackwardRule


@dataclass(frozen=True, slots=True)
class Request:
    """One method on given layers, with what of the model it reads besides.

    `join` makes a map (B,H,W) of what the method returns.
    """

    method: Method
    layers: tuple[Layer, ...]
    fusion: Fusion
    options: Mapping[str, Any]
    to_map: Callable[[Tensor], Tensor]
    head: ClassifierHead | None = None
    rows: ClsRowReader | None = None
    matrices: AttentionMatrixReader | None = None
    biases: Mapping[str, Tensor] | None = None
    guided: Mapping[str, BackwardRule] | None = None
    lrp: Mapping[str, BackwardRule] | None = None
    reader: Callable[[Tensor], Tensor] | None = None

    @property
    def source_layers(self) -> tuple[Layer, ...]:
        """The layers that it reads, asked for or its own."""
        own = self.rows or self.matrices
        of_head = (self.head.layer,) if self.head else ()
        return self.layers or (own.block_layers if own else of_head)
