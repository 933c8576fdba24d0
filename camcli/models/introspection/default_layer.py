"""Choose the default layer: the last map that the class score depends on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from camcli.core.errors import LayerError
from camcli.core.types import Layer
from camcli.models.introspection.hooks import compute_gradients, record_outputs
from camcli.models.introspection.layouts import output_to_map
from camcli.models.introspection.probe import create_probe_image

DEFAULT_SEARCH_DEPTH = 24  # the default is nearly always one of the last 24


def find_default_layer(network: nn.Module, layers: Sequence[Layer], size: tuple[int, int]) -> Layer:
    """The last layer whose map has a gradient of the predicted class, for the probe image.

    In transformers that classify the CLS token, patches have zero gradient after the last
    attention, so the gradient is measured. A map with one channel per class (TS-CAM's head) does
    not count: it holds scores, not features. Raises LayerError if there is no such layer.
    """
    # Try the last few first: the graph, and so the memory, is that of these layers only.
    last = _find_last_live_layer(
        network, layers[-DEFAULT_SEARCH_DEPTH:], size
    ) or _find_last_live_layer(network, layers, size)
    if last is None:
        raise LayerError(_explain_missing_layer(network, layers, size))
    return choose_numbered_layer(last, layers)


def _explain_missing_layer(
    network: nn.Module, layers: Sequence[Layer], size: tuple[int, int]
) -> str:
    """Why no layer has a gradient, and what to do."""
    with record_outputs(network, build_graph=True):
        logits = network(create_probe_image(network, size).requires_grad_().clone())
    if logits.requires_grad or not layers:
        return (
            "the class score does not depend on any map of this model; name a layer with --layers"
        )
    layer = choose_numbered_layer(layers[-1], layers).name
    return (
        "this network computes without gradients: its forward pass runs under torch.no_grad, or "
        "detaches a tensor. Remove that, or use a method without gradients: eigencam, scorecam or "
        f"ablationcam with --layers {layer}; occlusion or rise"
    )


def find_live_layer_names(
    network: nn.Module, layers: Sequence[Layer], size: tuple[int, int]
) -> frozenset[str]:
    """The names of the layers whose map has a gradient of the predicted class of the probe."""
    _logits, gradients = _compute_probe_gradients(network, layers, size)
    return frozenset(
        layer.name
        for layer, gradient in zip(layers, gradients, strict=True)
        if output_to_map(gradient, layer).any()
    )


def choose_numbered_layer(candidate: Layer, layers: Iterable[Layer]) -> Layer:
    """Among layers with the same output (`stages`, `stages.3`), prefer the stage or block."""
    same = (layer for layer in layers if layer.output_id == candidate.output_id)
    numbered = (layer for layer in same if layer.stage is not None or layer.block is not None)
    return next(numbered, candidate)


def _find_last_live_layer(
    network: nn.Module, layers: Sequence[Layer], size: tuple[int, int]
) -> Layer | None:
    logits, gradients = _compute_probe_gradients(network, layers, size)
    # One logit became two, so a map of two classes may have a single channel.
    class_counts = (2, 1) if logits.shape[1] == 2 else (logits.shape[1],)
    for layer, gradient in zip(reversed(layers), reversed(gradients), strict=True):
        is_live = output_to_map(gradient, layer)[0].flatten(1) != 0  # (C, H*W)
        is_class_map = layer.channels in class_counts and int(is_live.any(dim=1).sum()) == 1
        # With one live cell the class is not read here: it is the maximum of a side output.
        if int(is_live.any(dim=0).sum()) > 1 and not is_class_map:
            return layer
    return None


def _compute_probe_gradients(
    network: nn.Module, layers: Sequence[Layer], size: tuple[int, int]
) -> tuple[Tensor, Sequence[Tensor]]:
    names = [layer.name for layer in layers]
    with record_outputs(network, graph_layers=names) as recording:
        logits = network(create_probe_image(network, size))
        outputs = [recording.graph_outputs[name] for name in names]
        return logits, compute_gradients(logits.max(), outputs)
