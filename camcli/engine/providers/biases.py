"""What biases a convolutional network adds on its way to the score. Knows nothing of methods."""

from __future__ import annotations

from torch import Tensor, nn


def find_biases(network: nn.Module) -> dict[str, Tensor] | None:
    """Of each layer with biases the name under which its output can be tapped, and they (C,).

    Convolutions have theirs; a batch norm's is beta - mean gamma / sigma. None where a norm of
    another kind stands among them, for it adds no fixed amount, and where there are none.
    """
    modules = dict(network.named_modules())
    norms = [m for m in modules.values() if "norm" in type(m).__name__.lower()]
    if not all(_is_affine_batch_norm(norm) for norm in norms):
        return None
    found = {
        _find_hook_name(name, m): bias
        for name, m in modules.items()
        if (bias := _compute_bias(m)) is not None
    }
    return found or None


def _is_affine_batch_norm(norm: nn.Module) -> bool:
    """A batch norm with statistics and weights of its own."""
    return isinstance(norm, nn.BatchNorm2d) and norm.affine and norm.running_var is not None


def _find_hook_name(name: str, module: nn.Module) -> str:
    """Where the sum can be seen: timm's norms that hold their activation have a drop before it."""
    return f"{name}.drop" if hasattr(module, "act") and hasattr(module, "drop") else name


def _compute_bias(module: nn.Module) -> Tensor | None:
    if isinstance(module, nn.Conv2d):
        return module.bias
    if not isinstance(module, nn.BatchNorm2d):
        return None
    assert module.running_mean is not None
    assert module.running_var is not None
    gain = module.weight / (module.running_var + module.eps).sqrt()
    return module.bias - module.running_mean * gain
