"""The state of one forward pass, from which providers compute tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from camcli.core.types import Layer
from camcli.engine.providers.base import ProgressCallback
from camcli.models.introspection.attention_modules import disable_fused_attention
from camcli.models.introspection.hooks import (
    BackwardRule,
    Recording,
    apply_backward_rules,
    compute_gradients,
    record_outputs,
)
from camcli.models.introspection.layouts import output_to_map


@dataclass(frozen=True, slots=True)
class PassState:
    """One forward pass of a batch, and one score of each image.

    `logit_weights` (B,K) make the score from the logits. `gradients` holds, by layer name, the
    gradient of the score by each recorded output; the name "" stands for the inputs. At most
    `chunk_size` altered inputs go through the network at a time; `report_progress` is called with
    (done, total) after each chunk.
    """

    network: nn.Module
    inputs: Tensor
    logits: Tensor
    recording: Recording
    logit_weights: Tensor
    gradients: Mapping[str, Tensor]
    to_probabilities: Callable[[Tensor], Tensor]
    chunk_size: int
    report_progress: ProgressCallback
    cache: dict[tuple[str, str], Any] = field(default_factory=dict)

    def sum_scores(self, logits: Tensor) -> Tensor:
        """The sum of all images' scores. Images do not mix, so its gradients are each image's."""
        return (logits * self.logit_weights).sum()

    def get_activations(self, layer: Layer) -> Tensor:
        """A layer's output as maps (B,C,h,w), without its graph."""
        return output_to_map(self.recording.get_output(layer.name), layer).detach().float()

    def get_gradients(self, layer: Layer) -> Tensor:
        """The gradient of the score by a layer's output, as maps (B,C,h,w)."""
        return output_to_map(self.gradients[layer.name], layer).float()

    def run_extra_pass(
        self,
        inputs: Tensor,
        layer_name: str = "",
        backward_rules: Mapping[str, BackwardRule] | None = None,
        fused_modules: Iterable[Any] = (),
        forward_context: AbstractContextManager[Any] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run one more forward and backward pass: a layer's output, and the score's gradient by it.

        Without a layer name both are of the inputs. The forward pass runs in `forward_context`.
        """
        with ExitStack() as stack:
            stack.enter_context(disable_fused_attention(tuple(fused_modules)))
            stack.enter_context(apply_backward_rules(self.network, backward_rules or {}))
            graph_layers = [layer_name] if layer_name else []
            recording = stack.enter_context(
                record_outputs(self.network, graph_layers, build_graph=True)
            )
            source = inputs.detach().requires_grad_(not layer_name)
            with forward_context or nullcontext():
                logits = self.network(source)
            score = self.sum_scores(logits)
            output = recording.graph_outputs[layer_name] if layer_name else source
            (gradient,) = compute_gradients(score, [output])
        return output.detach().float(), gradient.float()
