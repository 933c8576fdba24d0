"""What makes a run faster changes no answer: folding, bf16, compiling, batches, threads."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from typing import Any, cast

import pytest
import torch
from conftest import lively, noise, small
from small_networks import FEW, hooks, top
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from camcli.core.errors import MethodError, UsageError
from camcli.core.types import Transform
from camcli.engine.acceleration import precision
from camcli.engine.acceleration.bn_folding import fold_batch_norms
from camcli.engine.acceleration.compilation import compile_network
from camcli.engine.acceleration.precision import use_bf16
from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.engine.postprocess import BatchExplanation
from camcli.engine.providers.provider_registry import gather_needs
from camcli.engine.request import Request
from camcli.methods.registry import METHODS, find_method
from camcli.models import model as models
from camcli.models.introspection.hooks import record_outputs
from camcli.models.model import Model

DENSE = {"growth_rate": 8, "block_config": (2, 2, 2, 2)}  # most norms come before convolutions
FOLDED = {"test_resnet": 15, "efficientnet_lite0": 49, "regnetx_002": 44, "densenet121": 9}
# At a kink of ReLU6 rounding decides: in fp32 these are as far from double precision, unfolded.
KINKED = ("integratedgradients", "smoothgrad", "gradientshap", "guidedig", "blurig", "opticam")
# What hangs on where one value falls (fem's cut, a ReLU's side), or on small differences of logits,
# moves by more in bf16 than sums over channels do.
ROUGH = (
    *("fem", "saliency", "inputxgradient", "deeplift", *KINKED, "occlusion", "ablationcam"),
    "groupcam",
)
# Rounding changes the order of XRAI's regions, and SIDU's similarity of a random network's tiny
# probabilities: no bound on single values holds.
UNBOUNDED = ("xrai", "sidu")


def requests_of(model: Model, method: str, spec: str | None = None) -> tuple[Request, ...]:
    few = {key: value for key, value in FEW.items() if key in find_method(method).options}
    return plan_requests(model, [find_method(method)], spec, options={method: few})


def applying(model: Model, kind: str) -> dict[str, tuple[Request, ...]]:
    requests = {}
    for name in (name for name, method in METHODS.items() if kind in method.works_on):
        with suppress(MethodError):
            requests[name] = requests_of(model, name)
    assert len(requests) > 20
    return requests


def with_history(name: str, network: nn.Module, side: int) -> Model:
    """Fresh batch norms have seen nothing: to fold them wrongly would change little."""
    generator = torch.Generator().manual_seed(2)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return models.wrap_network(name, network, Transform((side, side)))


def made(*layers: nn.Module) -> Model:
    """A classifier of five classes, of layers that end in eight channels."""
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    return with_history("made", lively(network), 16)


def conv(inputs: int = 8) -> nn.Conv2d:
    return nn.Conv2d(inputs, 8, 3, padding=1, bias=False)


def plain() -> Model:
    return made(conv(3), nn.BatchNorm2d(8), nn.ReLU(), conv(), nn.BatchNorm2d(8), nn.ReLU())


class Skipping(nn.Module):
    """The convolution's output is used by its norm, and again past it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(), nn.BatchNorm2d(8)

    def forward(self, values: Tensor) -> Tensor:
        output = self.conv(values)
        return cast(Tensor, output + self.norm(output).relu())


class Listed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.last = nn.ModuleList([conv(3), conv()]), conv()

    def forward(self, values: Tensor) -> Tensor:
        for block in self.blocks:
            values = block(values).relu()
        return cast(Tensor, self.last(values))


def state(network: nn.Module) -> dict[str, Any]:
    """Which parameters, which forwards, which hooks; and every bit."""
    own = {n: (vars(m).get("forward"), list(hooks(m))) for n, m in network.named_modules()}
    parameters = {
        n: {k: id(p) for k, p in m._parameters.items() if p is not None}
        for n, m in network.named_modules()
    }
    bits = {key: value.numpy().tobytes() for key, value in network.state_dict().items()}
    return {"own": own, "parameters": parameters, "bits": bits}


def gap(whole: list[BatchExplanation], other: list[BatchExplanation]) -> float:
    """How far maps are apart at most, as a share of the peak; answers must be the same."""
    for a, b in zip(whole, other, strict=True):
        assert a.fused.status_names == b.fused.status_names
        assert torch.equal(a.target_scores.class_indices, b.target_scores.class_indices)
    pairs = [(a.fused.values, b.fused.values) for a, b in zip(whole, other, strict=True)]
    return max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)) for a, b in pairs)


@pytest.mark.parametrize("name", FOLDED)
def test_folded_norms_change_no_map_of_any_method(name: str) -> None:
    options: dict[str, Any] = DENSE if name == "densenet121" else {}
    model = with_history(name, deepcopy(small(name, 96, 96, **options).network), 96)
    inputs, gaps = noise(2, model.input_size), {}
    logits = model.network(inputs)
    for method, requests in applying(model, "CNN").items():
        whole = explain_batch(model, inputs, requests, top)[0]
        with fold_batch_norms(model, requests) as count:
            gaps[method] = gap(whole, explain_batch(model, inputs, requests, top)[0])
            again = model.network(inputs)
        assert count == (0 if gather_needs(requests).batch_norms else FOLDED[name]), method
        assert torch.allclose(again, logits, rtol=0, atol=1e-4 * float(logits.abs().max()))
    bounded = {m: g for m, g in gaps.items() if m not in UNBOUNDED}
    assert not {m: g for m, g in bounded.items() if g > (3e-2 if m in KINKED else 1e-4)}


def test_a_network_is_the_same_after_folding_even_if_the_run_fails() -> None:
    model = plain()
    before = state(model.network)
    run = fold_batch_norms(model, requests_of(model, "gradcam"))
    with pytest.raises(ZeroDivisionError), run as count:  # noqa: PT012
        assert count == 2
        assert state(model.network)["parameters"] != before["parameters"]
        raise ZeroDivisionError
    assert state(model.network) == before


def test_a_convolution_that_is_read_or_has_rules_of_its_own_keeps_its_norm() -> None:
    model = plain()
    with fold_batch_norms(model, requests_of(model, "gradcam", "3")) as count:
        assert count == 1
    with fold_batch_norms(model, requests_of(model, "guidedbackprop")) as count:
        assert count == 0


NORM = nn.BatchNorm2d(8)
KEPT: dict[str, Callable[[], Model]] = {
    "used elsewhere": lambda: made(conv(3), Skipping()),
    "norm called twice": lambda: made(conv(3), NORM, nn.ReLU(), conv(), NORM, conv()),
    "weight made anew": lambda: made(nn.utils.spectral_norm(conv(3)), nn.BatchNorm2d(8), conv()),
    "standardised": lambda: small("nf_resnet26", 64, 64),
    "no norm": lambda: small("test_vit"),
}


@pytest.mark.parametrize("kind", KEPT)
def test_what_cannot_be_folded_is_not(kind: str) -> None:
    model = KEPT[kind]()
    inputs = noise(2, model.input_size)
    logits = model.network(inputs)
    with fold_batch_norms(model, requests_of(model, "gradcam")) as count:
        assert count == 0
        assert torch.allclose(model.network(inputs), logits, atol=1e-6)


@pytest.mark.parametrize(("name", "kind"), [("test_resnet", "CNN"), ("test_vit", "ViT")])
def test_maps_in_bf16_are_nearly_those_in_fp32(name: str, kind: str) -> None:
    model, least = small(name, 96, 128), {}
    before = state(model.network)
    for method, requests in applying(model, kind).items():
        whole = explain_batch(model, noise(4, model.input_size), requests, top)
        with use_bf16(model):
            half = explain_batch(model, noise(4, model.input_size), requests, top)
        assert all(one.fused.values.dtype == torch.float32 for one in half[0])
        least[method] = precision.compute_least_correlation(
            whole, half
        )  # 0 for another class or status
    bounded = {m: c for m, c in least.items() if m not in UNBOUNDED}
    assert not {m: c for m, c in bounded.items() if not c >= (0.9 if m in ROUGH else 0.99)}
    assert state(model.network) == before


def test_in_bf16_what_is_copied_and_logits_are_in_full_and_a_failure_leaves_nothing() -> None:
    model = small("test_resnet")
    before = state(model.network)
    with use_bf16(model):
        with record_outputs(model.network, ["layer2"], {"layer3": Tensor.mean}, ["layer4"]) as seen:
            logits = model.network(noise(1, model.input_size))
        assert seen.graph_outputs["layer2"].dtype == torch.bfloat16  # lowered indeed
        full = {
            logits.dtype,
            seen.copied_outputs["layer4"].dtype,
            seen.reduced_outputs["layer3"].dtype,
        }
        assert full == {torch.float32}
        with pytest.raises(RuntimeError):
            model.network(torch.zeros(1, 7, 96, 96))
        assert not torch.is_autocast_enabled("cpu")
    assert state(model.network) == before


def test_parts_in_a_list_are_compiled_and_layers_are_still_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, ran = made(Listed(), nn.ReLU()), list[nn.Module]()
    requests = requests_of(model, "gradcam", "0.last")
    whole = explain_batch(model, noise(2, model.input_size), requests, top)[0]

    def counted(forward: Any) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            ran.append(forward.__self__)
            return forward(*given)

        return call

    monkeypatch.setattr(torch, "compile", counted)
    with pytest.raises(UsageError, match=r"^--compile: .* no$"), compile_network(model, requests):  # noqa: PT012
        assert gap(whole, explain_batch(model, noise(2, model.input_size), requests, top)[0]) == 0
        raise TorchDynamoException("no\nmore")
    leaves = {m for m in model.network.modules() if not list(m.children())}
    assert leaves <= {inner for part in ran for inner in part.modules()}
