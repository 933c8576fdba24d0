"""Rules for the functions of torch that a network calls: each keeps a value, not its gradient.

A rule sees `x + y`, `F.relu(x)` and a module that is used twice as well as any other module, and
the network stays as it is. The rules apply to every call between entering and leaving a context.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ShareFunction = Callable[[Tensor], Sequence[Tensor]]

# Nodes of the autograd graph that only move values, or choose some of them.
MOVING_NODES = (
    *("View", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "T", "Clone", "Expand"),
    *("Squeeze", "Unsqueeze", "Cat", "Stack", "Split", "SplitWithSizes", "UnsafeSplit", "Slice"),
    *(
        "Select",
        "Index",
        "Unbind",
        "Roll",
        "Flip",
        "Alias",
        "AsStrided",
        "ToCopy",
        "AccumulateGrad",
    ),
    *("ConstantPadNd", "ReflectionPad2D", "ReplicationPad2D", "PixelShuffle", "PixelUnshuffle"),
)
MAX_POOLING_NODES = ("MaxPool2DWithIndices", "MaxPool2D", "AdaptiveMaxPool2D", "Amax")
OWN_NODE = "_Share"
MAX_LOGIT_ERROR = 1e-4  # of the largest logit


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A call of a function of torch: `name` has no underscores around it, so relu_ is relu."""

    function: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The function's name without underscores: "relu" for relu_, "iadd" for __iadd__."""
        return str(getattr(self.function, "__name__", "")).strip("_")

    def run(self, *tensors: Any) -> Any:
        """Run the function, with other tensors in place of its first arguments."""
        return self.function(*tensors, *self.args[len(tensors) :], **self.kwargs)

    def run_on_copy(self) -> Any:
        """Run a function of one tensor, which may change that tensor in place."""
        first = self.args[0]
        return self.run(first.clone() if self._is_in_place else first)

    @property
    def _is_in_place(self) -> bool:
        own = str(getattr(self.function, "__name__", ""))
        flags = (self.kwargs.get("inplace"), *self.args[1:])
        return own.endswith("_") or own.startswith("__i") or any(flag is True for flag in flags)


FunctionRule = Callable[[FunctionCall], Any]


def _create_call(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> FunctionCall:
    """A call whose first tensor comes first, even if it is given by its name."""
    if args or "input" not in kwargs:
        return FunctionCall(function, args, kwargs)
    others = {name: value for name, value in kwargs.items() if name != "input"}
    return FunctionCall(function, (kwargs["input"],), others)


class _RuleMode(TorchFunctionMode):
    def __init__(self, rules: Mapping[str, FunctionRule]) -> None:
        super().__init__()
        self.rules = rules

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        call = _create_call(func, args, kwargs or {})
        rule = self.rules.get(call.name)
        return call.run() if rule is None else rule(call)


@contextmanager
def apply_function_rules(rules: Mapping[str, FunctionRule]) -> Iterator[None]:
    """Inside the context, a function whose name has a rule goes through that rule.

    Compiled parts of the network run as they are written, because rules cannot see into them.
    """
    with _run_uncompiled(), _RuleMode(rules):
        yield


def _run_uncompiled() -> AbstractContextManager[Any]:
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and the import takes seconds
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


class _Share(torch.autograd.Function):
    """The value of one function with the gradient of another."""

    @staticmethod
    def forward(
        ctx: Any, compute: Callable[[], Tensor], share: ShareFunction, *_inputs: Tensor
    ) -> Tensor:
        ctx.share = share
        return compute()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return None, None, *ctx.share(gradients[0])


def replace_gradient(
    compute: Callable[[], Tensor], share: ShareFunction, inputs: Sequence[Tensor]
) -> Tensor:
    """The tensor that `compute` makes of `inputs`; `share` gives the gradient of each of these."""
    found: Tensor = _Share.apply(compute, share, *inputs)
    return found


def requires_gradient(value: Any) -> bool:
    """Whether a value is a tensor in the autograd graph."""
    return isinstance(value, Tensor) and value.requires_grad


@torch.enable_grad()
def find_obstacle(
    network: nn.Module,
    image: Tensor,
    rules: AbstractContextManager[None],
    allowed_nodes: Sequence[str],
    bilinear_nodes: Sequence[str] = (),
) -> str | None:
    """The first function in a network that has no rule; None if the rules cover all of it.

    Every node of the graph of the logits must come from a rule, or be one of `allowed_nodes`. In
    nodes of `bilinear_nodes` only one factor may depend on the input.
    """
    with torch.no_grad():
        plain = network(image.clone())
    source = image.clone().requires_grad_()
    with rules:
        logits = network(source)
    if not logits.requires_grad:
        return "a forward pass without gradients"
    for node in _iter_nodes(logits.grad_fn):
        name = re.sub(r"Backward\d*$", "", node.name().rpartition("::")[2])
        if name == OWN_NODE:
            continue
        parents = [parent for parent, _ in node.next_functions if parent is not None]
        # A batch norm without statistics of its own reads those of the batch.
        is_training = bool(getattr(node, "_saved_training", False))
        if name not in allowed_nodes or is_training or (name in bilinear_nodes and parents[1:]):
            return name
    if not torch.allclose(logits, plain, rtol=0, atol=MAX_LOGIT_ERROR * float(plain.abs().max())):
        return "a function that changes a tensor in place"
    return None


def _iter_nodes(root: Any) -> Iterator[Any]:
    """All nodes of an autograd graph, the last function first."""
    waiting, seen = [root], {root}
    while waiting:
        node = waiting.pop(0)
        yield node
        new = [parent for parent, _ in node.next_functions if parent and parent not in seen]
        waiting += new
        seen.update(new)
