"""Wrapping a network does not change it: camcli works on a frozen copy that shares the weights."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from conftest import lively, noise
from torch import Tensor, nn

from camcli.core.errors import ModelError
from camcli.core.types import Transform
from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.methods.registry import find_method
from camcli.models.model import Model, load_model, wrap_network

SIZE = (64, 64)
METHODS = {
    "cnn": ("gradcam", "layercam", "fullgrad", "guidedbackprop", "scorecam", "ablationcam"),
    "vit": ("gradcam", "attention", "rollout", "chefer", "legrad", "lrp"),
}


class Cnn(nn.Module):
    """Two convolutions with norms, of which the second has its weight from `weight_norm`."""

    def __init__(self, class_count: int = 4) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.act1, self.act2 = nn.ReLU(), nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(8, class_count)

    def forward(self, images: Tensor) -> Any:
        x = self.act1(self.norm1(self.conv1(images)))
        x = self.act2(self.norm2(self.conv2(x)))
        return self.fc(self.drop(x.mean(dim=(2, 3))))


class Tuple(Cnn):
    """Returns its logits in a tuple."""

    def forward(self, images: Tensor) -> Any:
        return super().forward(images), images.mean()


class Counter(Cnn):
    """Writes to a buffer in each forward pass, and keeps a tensor that autograd computed."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.extra = [self.fc.weight * 2]

    def forward(self, images: Tensor) -> Any:
        self.calls += 1
        return super().forward(images)


def make_weight_normed() -> Any:
    network: Any = lively(Cnn())
    with pytest.warns(FutureWarning, match="weight_norm"):
        nn.utils.weight_norm(network.conv2)
    return network


def make_mixed_modes() -> Any:
    """In train mode but for one frozen norm, as in fine-tuning; one gradient is there already."""
    network: Any = lively(Cnn())
    network.norm1.eval()
    network.norm1.requires_grad_(False)
    network.fc.weight.grad = torch.ones_like(network.fc.weight)
    network.fc.register_forward_hook(lambda *_: None)
    return network


NETWORKS: dict[str, tuple[str, Callable[[], Any]]] = {
    "four classes": ("cnn", lambda: lively(Cnn())),
    "one logit": ("cnn", lambda: lively(Cnn(1))),
    "tuple": ("cnn", lambda: lively(Tuple())),
    "writes to a buffer": ("cnn", lambda: lively(Counter())),
    "weight_norm": ("cnn", make_weight_normed),
    "mixed modes": ("cnn", make_mixed_modes),
    "resnet": ("cnn", lambda: lively(timm.create_model("test_resnet", num_classes=1))),
    "vit": ("vit", lambda: lively(timm.create_model("test_vit", num_classes=4, img_size=SIZE))),
}


def state_of(network: nn.Module) -> dict[str, Any]:
    """Whatever camcli could change: classes, modes, hooks, attributes, and all about tensors."""
    found: dict[str, Any] = {}
    for name, module in network.named_modules():
        own = {k: v for k, v in vars(module).items() if not isinstance(v, dict | Tensor | list)}
        hooks = {k: list(v.values()) for k, v in vars(module).items() if k.endswith("_hooks") and v}
        found[name] = (type(module), own, hooks, sorted(vars(module)))
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        grad = None if tensor.grad is None else tensor.grad.tolist()
        about = (type(tensor), tensor.device, tensor.dtype, tensor.stride(), tensor.requires_grad)
        found[f"tensor {name}"] = (id(tensor), tensor.data_ptr(), about, grad, tensor.tolist())
    return found


def explain_all(model: Model, kind: str) -> None:
    requests = plan_requests(model, [find_method(method) for method in METHODS[kind]])
    found = explain_batch(model, noise(2, SIZE), requests, lambda x: x.topk(1).indices)
    assert all(torch.isfinite(each.fused.values).all() for each in found[0])


@pytest.mark.parametrize("key", NETWORKS)
def test_wrapping_and_explaining_leave_a_network_as_it_was(key: str) -> None:
    kind, make = NETWORKS[key]
    network = make().train() if key != "mixed modes" else make()
    before = state_of(network)
    model = wrap_network(key, network, Transform(SIZE))
    assert state_of(network) == before
    explain_all(model, kind)
    assert state_of(network) == before
    assert not any(p.requires_grad for p in model.network.parameters())
    assert not any(m.training for m in model.network.modules())


@pytest.mark.parametrize("key", NETWORKS)
def test_the_copy_computes_what_the_network_computes(key: str) -> None:
    network = NETWORKS[key][1]()
    model = wrap_network(key, network, Transform(SIZE))
    inputs = noise(2, SIZE)
    with torch.no_grad():
        output = network.eval()(inputs)
    logits = output[0] if isinstance(output, tuple) else output
    expected = torch.cat([-logits, logits], dim=1) if logits.shape[1] == 1 else logits
    torch.testing.assert_close(model.network(inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("key", ["four classes", "one logit", "tuple", "weight_norm", "vit"])
def test_training_goes_on_after_wrapping(key: str) -> None:
    kind, make = NETWORKS[key]
    network = make().train()
    explain_all(wrap_network(key, network, Transform(SIZE)), kind)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    output = network(noise(4, SIZE))
    logits = output[0] if isinstance(output, tuple) else output
    score: Any = torch.logsumexp(logits, dim=1).sum()
    score.backward()
    assert all(p.grad is not None for p in network.parameters())
    optimizer.step()
    assert any(not torch.equal(before[name], p) for name, p in network.named_parameters())


def test_the_weights_are_shared_where_the_memory_format_stays() -> None:
    network: Any = lively(Cnn())
    network.to(memory_format=torch.channels_last)
    model = wrap_network("shared", network, Transform(SIZE))
    for own, theirs in zip(model.network.parameters(), network.parameters(), strict=True):
        assert own is not theirs
        assert own.data_ptr() == theirs.data_ptr()


def test_after_a_training_step_the_copy_has_all_weights_of_one_time() -> None:
    """A copy that shared some weights and not others would be a network that never was."""
    network = lively(Cnn())
    model = wrap_network("snapshot", network, Transform(SIZE))
    assert model.network.get_parameter("conv1.weight").is_contiguous(
        memory_format=torch.channels_last
    )
    before = model.network(noise(1, SIZE))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    assert torch.equal(model.network(noise(1, SIZE)), before)


def test_tied_weights_stay_tied() -> None:
    network: Any = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1))
    network.a = nn.Conv2d(8, 8, 3, 2, 1)
    network.b = nn.Conv2d(8, 8, 3, 2, 1)
    network.b.weight = network.a.weight
    network.pool, network.flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    network.fc = nn.Linear(8, 3)
    copied: Any = wrap_network("tied", network, Transform(SIZE)).network
    assert copied.b.weight is copied.a.weight
    assert copied.b.weight is not network.a.weight


def test_without_a_copy_camcli_uses_the_network_itself() -> None:
    network = lively(Cnn(1)).train()
    model = wrap_network("own", network, Transform(SIZE), copy=False)
    assert model.network is network
    assert not network.training
    assert model.network(noise(1, SIZE)).shape == (1, 2)


def test_a_network_that_cannot_be_copied_is_one_line() -> None:
    network: Any = lively(Cnn())
    network.lock = threading.Lock()
    before = state_of(network)
    with pytest.raises(
        ModelError, match=r"^locked cannot be copied \(.*\); .*copy=False"
    ) as raised:
        wrap_network("locked", network, Transform(SIZE))
    assert "\n" not in str(raised.value)
    assert state_of(network) == before
    assert wrap_network("locked", network, Transform(SIZE), copy=False).network is network


def test_weights_that_are_not_there_yet_are_not_invented() -> None:
    network = nn.Sequential(nn.LazyConv2d(8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ModelError, match="not initialized; run it on one image first"):
        wrap_network("lazy", network, Transform(SIZE))


def test_a_program_is_refused_with_what_to_do() -> None:
    trace: Any = torch.jit.trace
    with pytest.warns(FutureWarning, match="deprecated"):
        program = trace(lively(Cnn()).eval(), noise(1, SIZE))
    with pytest.raises(ModelError, match=r"TorchScript program.*program:FILE"):
        wrap_network("program", program, Transform(SIZE))


def test_a_network_that_is_no_classifier_stays_as_it_was_too() -> None:
    network: Any = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).train()
    before = state_of(network)
    assert wrap_network("maps", network, Transform(SIZE)).output_kind == "embedding"
    assert state_of(network) == before


def test_what_camcli_loads_is_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("camcli.models.model.copy_network", fail)
    assert load_model("test_resnet", pretrained=False, device="cpu").layers
