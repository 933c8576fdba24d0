"""Providers: one for every tensor that a method may ask for, and all about it in one place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from conftest import noise, small
from small_networks import hooks, outputs_of
from torch import Tensor, nn

from camcli.core.errors import MethodError, UsageError
from camcli.core.types import Layer
from camcli.engine.default_model import choose_default_model
from camcli.engine.explain_batch import ExplainOptions, explain_batch
from camcli.engine.pass_state import PassState
from camcli.engine.plan import plan_requests
from camcli.engine.providers.base import ModelPart, PassNeeds, Provider
from camcli.engine.providers.provider_registry import PROVIDERS, register_provider
from camcli.engine.request import Request
from camcli.methods.registry import METHODS, find_method, method
from camcli.models.model import Model


@pytest.fixture
def open_registries() -> Iterator[None]:
    """Providers and methods of a test are gone after it."""
    registries: tuple[dict[str, Any], ...] = (PROVIDERS, METHODS)
    before = [set(registry) for registry in registries]
    yield
    for registry, names in zip(registries, before, strict=True):
        for name in registry.keys() - names:
            del registry[name]


def test_every_input_of_a_method_has_a_provider() -> None:
    asked = {name for m in METHODS.values() for name in m.input_names}
    assert asked <= PROVIDERS.keys()
    assert all(name == provider.name for name, provider in PROVIDERS.items())


def test_every_provider_says_what_it_provides() -> None:
    assert not [p.name for p in PROVIDERS.values() if not (p.compute.__doc__ or "").strip()]


@pytest.mark.usefixtures("open_registries")
def test_a_name_has_one_provider() -> None:
    known = PROVIDERS["gradients"]
    with pytest.raises(ValueError, match="two providers have the name 'gradients'"):
        register_provider(Provider("gradients", lambda *_: None))
    assert PROVIDERS["gradients"] is known


@pytest.mark.usefixtures("open_registries")
def test_a_method_that_asks_for_what_nothing_provides_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match=r"camcli has no input 'gradient'; did you mean gradients"):

        @method(paper="")
        def hopeful(gradient: Tensor) -> Tensor:
            return gradient

    assert "hopeful" not in METHODS


def test_providers_import_no_torch() -> None:
    program = (
        "import sys, camcli.engine.providers.provider_registry as r; "
        "sys.exit(len(r.PROVIDERS) < 10 or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# --- a provider that camcli does not have


def find_first_norm(model: Model) -> str | None:
    names = (n for n, m in model.network.named_modules() if isinstance(m, nn.BatchNorm2d))
    return next(names, None)


FIRST_NORM = ModelPart(find_first_norm, lambda model: f"a batch norm; {model.name} has none")


def provide_norm_gain(state: PassState, request: Request, _layer: Layer) -> Tensor:
    """Output times gradient of the first batch norm: (B,C,h,w)."""
    name = request.get_part(FIRST_NORM)
    return state.recording.graph_outputs[name].detach() * state.gradients[name]


@pytest.fixture
def _norm_gain(open_registries: None) -> None:
    register_provider(
        Provider(
            "norm_gain",
            provide_norm_gain,
            cost="gradient",
            class_specific=True,
            reads_cls=True,
            model_parts=(FIRST_NORM,),
            list_needs=lambda request: PassNeeds(graph_layers=(request.get_part(FIRST_NORM),)),
        )
    )

    @method(paper="", returns="terms", works_on=("CNN",))
    def normcam(norm_gain: Tensor) -> Tensor:
        return norm_gain


@pytest.mark.usefixtures("_norm_gain")
def test_a_provider_of_ones_own_serves_a_method_of_ones_own() -> None:
    own = find_method("normcam")
    assert (own.costs, own.class_specific, own.per_layer) == (("gradient",), True, False)
    model = small("test_resnet", 96, 128)
    inputs = noise(2, model.input_size)
    requests = plan_requests(model, [own, find_method("gradcam")])
    found = explain_batch(model, inputs, requests, lambda _: torch.tensor([[3], [5]]))[0][0]
    name = find_first_norm(model)
    assert name is not None
    with outputs_of(model.network, [name]) as kept:
        logits = model.network(inputs.clone().requires_grad_())
    score = logits[0, 3] + logits[1, 5]
    (gradient,) = torch.autograd.grad(score, kept[name])
    expected = (kept[name] * gradient).sum(dim=1).relu()
    assert torch.allclose(found.fused.values, expected, atol=1e-5 * float(expected.detach().max()))
    assert not list(hooks(model.network))


@pytest.mark.usefixtures("_norm_gain")
def test_a_model_without_the_part_is_told_what_it_lacks() -> None:
    with pytest.raises(MethodError, match=r"^normcam needs a batch norm; test_vit has none\. Try "):
        plan_requests(small("test_vit"), [find_method("normcam")])


def test_what_is_of_one_test_is_unknown_to_the_others() -> None:
    assert "norm_gain" not in PROVIDERS
    assert "normcam" not in METHODS


# --- what the providers that there are do


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["gradcam", "cam"], "tf_efficientnet_lite0"),
        (["chefer", "rollout", "legrad"], "vit_lite0"),
        (["gradcam", "chefer"], "vit_lite0"),
        (["tscam"], "tscam_vit_lite0"),
        (["attention"], "tscam_vit_lite0"),
        (["lrp"], "tf_efficientnet_lite0"),
        (["chefer", "tscam"], "tscam_vit_lite0"),
    ],
)
def test_the_embedded_network_that_suits_the_methods(names: list[str], expected: str) -> None:
    assert choose_default_model([find_method(name) for name in names]) == expected


def test_progress_counts_over_the_whole_batch() -> None:
    model = small("test_resnet", 96, 128)
    told: list[tuple[int, int]] = []
    requests = plan_requests(
        model, [find_method("ablationcam")], options={"ablationcam": {"channels": 10}}
    )
    explain_batch(
        model,
        noise(2, model.input_size),
        requests,
        lambda _: torch.tensor([[1], [2]]),
        ExplainOptions(chunk_size=4, report_progress=lambda *numbers: told.append(numbers)),
    )
    unchanged = [(1, 2), (2, 2)]  # the score that the others are compared with
    assert told == [*unchanged, *((n, 20) for n in (4, 8, 10, 14, 18, 20))]
