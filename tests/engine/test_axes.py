"""What composes with every method: contrasts, heads, answers of any shape, smoothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_grad_cam
import timm
import torch
from conftest import lively, noise, small
from small_networks import class_token_model, doubles, found_by, model_of, photographs
from torch import Tensor, nn

from camcli.core.errors import MethodError, ModelError, UsageError
from camcli.core.types import ImageSource, Transform
from camcli.engine import smoothing, targets
from camcli.engine.explain_batch import ExplainOptions, explain_batch
from camcli.engine.plan import plan_requests
from camcli.engine.postprocess import BatchExplanation
from camcli.engine.target_rules import choose_target_columns
from camcli.engine.target_weights import compute_finer_weights
from camcli.io import labels
from camcli.methods.registry import METHODS, find_method
from camcli.models import model as models
from camcli.models.model import Model

TEN = labels.create_labels([f"class {n}" for n in range(10)])


def explained(
    model: Model, method: str, inputs: Tensor, spec: str, **options: Any
) -> BatchExplanation:
    """What `--target SPEC` finds of a method."""
    target = targets.parse_target(spec)(TEN)
    wanted = [target.find_fixed_classes(ImageSource("", "", ""))] * len(inputs)  # type: ignore[arg-type]
    choose = partial(choose_target_columns, target, wanted, model.to_probabilities)
    requests = plan_requests(model, [find_method(method)], options={method: options})
    return explain_batch(model, inputs, requests, choose)[0][0]


# --- contrasts


@pytest.mark.parametrize("method", ["cam", "integratedgradients", "tscam"])
def test_a_contrast_is_the_difference_of_two_maps(method: str) -> None:
    """Of signed maps that are linear in the score; the others cut off what is below zero."""
    model = model_of("vit" if method == "tscam" else "efficientnet")
    inputs = photographs(model.input_size, 2)
    options = {"absolute": False, "steps": 2} if method == "integratedgradients" else {}
    one, other, both = (
        explained(model, method, inputs, spec, **options).fused.values
        for spec in ("class 1", "class 8", "class 1-vs-class 8")
    )
    if method == "tscam":  # its attention is the same for both; the bias counts too
        assert (both - (one - other)).abs().max() <= 1e-5 * one.abs().max()
    else:
        assert (both - (one - other)).abs().max() <= 1e-4 * both.abs().max()
    assert (both - one).abs().max() > 0.1 * one.abs().max()


def test_finer_contrasts_with_the_nearest_logits() -> None:
    found = torch.tensor([[5.0, 1.0, 4.5, 7.0, 4.0], [0.0, 9.0, 1.0, 8.0, 5.0]])
    weights = compute_finer_weights(2, found, torch.tensor([0, 1]))
    assert torch.allclose(weights[0], torch.tensor([1.0, 0.0, -0.3, 0.0, -0.3]))
    assert torch.allclose(weights[1], torch.tensor([0.0, 1.0, 0.0, -0.3, -0.3]))


@pytest.mark.parametrize("method", [("gradcam", "GradCAM"), ("layercam", "LayerCAM")])
def test_finer_beside_its_peer(method: tuple[str, str]) -> None:
    """With one rival; of several, grad-cam weighs each by its probability, the paper all alike."""
    model = model_of("resnet")
    inputs = photographs(model.input_size)
    found = explained(model, method[0], inputs, "finer:1").fused
    base = getattr(pytorch_grad_cam, method[1])
    peer = pytorch_grad_cam.FinerCAM(
        model.network, [model.network.get_submodule("layer4")], base_method=base
    )
    theirs = peer(inputs.clone().requires_grad_(), alpha=0.6, comparison_categories=[1])
    peer.base_cam.activations_and_grads.release()
    large = nn.functional.interpolate(found.shown[:, None], model.input_size, mode="bilinear")[:, 0]
    # grad-cam min-maxes once more when it has enlarged, where the peak between cells is lost.
    for own, wanted in zip(large, theirs, strict=True):
        assert np.corrcoef(own.numpy().ravel(), wanted.ravel())[0, 1] > 0.9999


def test_every_method_takes_a_contrast() -> None:
    few = {"samples": 2, "steps": 2, "masks": 20, "channels": 4, "window": 48, "stride": 48}
    for name, m in METHODS.items():
        usual = "resnet" if "CNN" in m.works_on else "vit"
        model = class_token_model("2") if "MCTformer" in m.works_on else model_of(usual)
        inputs = photographs(model.input_size, 2)
        options = {key: value for key, value in few.items() if key in m.options}
        one, both = (  # of classes that have a probability in this network
            explained(model, name, inputs, spec, **options).fused
            for spec in ("class 3", "class 3-vs-class 4")
        )
        assert torch.isfinite(both.values).all()
        assert torch.equal(one.values, both.values) != m.class_specific, name


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("class 1-vs-class 1", "both classes are the same"),
        ("class 1-vs-dog", "no class 'dog'"),
        ("dog-vs-class 1", "no class 'dog'"),
        ("finer:10", "the model has 10"),
        ("finer:0", "write finer:3"),
        ("finer:x", "write finer:3"),
        ("finer:-1", "write finer:3"),
    ],
)
def test_contrasts_that_cannot_be(spec: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        targets.parse_target(spec)(TEN)


def test_a_class_whose_name_holds_the_word_is_a_class() -> None:
    odd = labels.create_labels(["cat-vs-dog", "cat", "dog"])
    source = ImageSource(Path(), "", "")
    assert targets.parse_target("cat-vs-dog")(odd).find_fixed_classes(source) == ((0,),)


# --- heads and answers


class Answering(nn.Module):
    """A network that wraps its logits."""

    def __init__(self, network: nn.Module, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.network, self.wrap = network, wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.network(x))


def batch(values: Tensor) -> Tensor:
    return values[:, None, None, None] * torch.ones(1, 3, 5, 5)


WRAPS: dict[str, Callable[[Tensor], Any]] = {
    "tuple": lambda z: (z, batch(z[:, 0])),
    "features first": lambda z: [batch(z[:, 0]), z],
    "dict": lambda z: {"aux": z * 2, "logits": z},
    "dict of one": lambda z: {"out": z, "features": batch(z[:, 0])},
    "object": lambda z: SimpleNamespace(logits=z, loss=None),
}


@pytest.mark.parametrize("kind", WRAPS)
def test_answers_of_any_shape(kind: str) -> None:
    plain = small("test_resnet", 96, 128)
    wrapped = models.wrap_network(kind, Answering(plain.network, WRAPS[kind]), plain.transform)
    inputs = noise(2, plain.input_size)
    assert torch.equal(wrapped.network(inputs), plain.network(inputs))
    assert "network.layer4" in {layer.name for layer in wrapped.layers}
    found, expected = (found_by(m, "gradcam", inputs, [1, 2]).fused for m in (wrapped, plain))
    assert torch.allclose(found.values, expected.values, atol=1e-6)


@pytest.mark.parametrize("output", [{"a": torch.ones(1, 3, 2)}, (), 3, None])
def test_answers_that_are_none(output: Any) -> None:
    plain = lively(timm.create_model("test_resnet", num_classes=10))
    with pytest.raises(ModelError, match="is not a classifier"):
        models.wrap_network("odd", Answering(plain, lambda _: output), Transform((96, 96)))


@pytest.mark.parametrize("flat", [False, True])
def test_a_single_logit_is_two_classes(flat: bool) -> None:
    network = lively(timm.create_model("test_resnet", num_classes=1)).eval()
    one = models.wrap_network(
        "one",
        Answering(network, lambda z: z[:, 0] if flat else z),
        Transform((96, 128)),
        head="sigmoid",
    )
    inputs = photographs(one.input_size)
    z = network(inputs)[:, 0]
    assert one.output_kind == "sigmoid"
    assert len(one.labels.names) == 2
    requests = plan_requests(one, [find_method("integratedgradients"), find_method("gradcam")])
    both = explain_batch(one, inputs, requests, lambda _: torch.tensor([[0, 1]] * 3))
    no, yes = both[0]
    assert torch.allclose(yes.target_scores.scores, z.sigmoid(), atol=1e-6)
    assert torch.allclose(no.target_scores.scores, 1 - z.sigmoid(), atol=1e-6)
    assert torch.allclose(
        no.fused.values, yes.fused.values, atol=1e-5
    )  # the same, but for its sign
    assert not torch.allclose(both[1][0].fused.values, both[1][1].fused.values)


def test_cam_of_a_single_logit() -> None:
    network = lively(timm.create_model("test_resnet", num_classes=1)).eval()
    one = models.wrap_network("one", network, Transform((96, 128)))
    inputs = photographs(one.input_size)
    no, yes = explain_batch(
        one, inputs, plan_requests(one, [find_method("cam")]), lambda _: torch.tensor([[0, 1]] * 3)
    )[0]
    assert torch.allclose(no.fused.values, -yes.fused.values, atol=1e-5)
    bias = one.network.get_parameter("fc.bias").item()
    assert torch.allclose(
        yes.fused.values.mean(dim=(1, 2)) + bias, one.network(inputs)[:, 1], atol=1e-3
    )


def test_sigmoid_heads_score_each_class_by_itself() -> None:
    from dataclasses import replace

    model = replace(small("test_resnet", 96, 128), output_kind="sigmoid")
    inputs = photographs(model.input_size)
    found = found_by(model, "gradcam", inputs, [1, 2, 3])
    own = model.network(inputs).gather(1, torch.tensor([[1], [2], [3]]))[:, 0]
    assert torch.allclose(found.target_scores.scores, own.sigmoid(), atol=1e-6)
    masked = found_by(model, "occlusion", inputs, [1, 2, 3], options={"window": 64, "stride": 64})
    softmax = found_by(small("test_resnet", 96, 128), "occlusion", inputs, [1, 2, 3])
    assert not torch.allclose(masked.fused.values, softmax.fused.values)


# --- smoothing


def smoothed(model: Model, method: str, inputs: Tensor, spec: str) -> BatchExplanation:
    kind = smoothing.parse_smoothing(spec, seed=3)
    requests = plan_requests(model, [find_method(method)], smoothing=kind)
    classes = torch.tensor([[1]] * len(inputs))
    return explain_batch(
        model, inputs, requests, lambda _: classes, ExplainOptions(smoothing=kind)
    )[0][0]


@pytest.mark.parametrize(
    ("key", "method"), [("resnet", "gradcam"), ("vit", "tscam"), ("vit", "chefer")]
)
def test_augmented_views_are_averaged(key: str, method: str) -> None:
    model = model_of(key)
    inputs = photographs(model.input_size, 2)
    found = smoothed(model, method, inputs, "augment")
    plain = [found_by(model, method, c * inputs, [1, 1]).fused.values for c in (0.9, 1, 1.1)]
    mirror = [found_by(model, method, c * inputs.flip(3), [1, 1]) for c in (0.9, 1, 1.1)]
    views = plain + [m.fused.values.flip(2) for m in mirror]
    assert torch.allclose(found.fused.values, torch.stack(views).mean(0), atol=1e-5)
    expected = found_by(model, method, inputs, [1, 1]).target_scores.scores
    assert torch.allclose(
        found.target_scores.scores, expected
    )  # of the image itself, not of its views


def test_classes_are_those_of_the_image_even_of_one_noisy_view() -> None:
    model = model_of("efficientnet")
    inputs = photographs(model.input_size, 2)
    found = smoothed(model, "gradcam", inputs, "noise:1")
    assert torch.allclose(
        found.target_scores.scores, found_by(model, "gradcam", inputs, [1, 1]).target_scores.scores
    )


def test_noisy_views_are_averaged_and_drawn_from_the_seed() -> None:
    model = model_of("efficientnet")
    inputs = photographs(model.input_size, 2)
    found = smoothed(model, "saliency", inputs, "noise:3").fused.values
    generator = torch.Generator().manual_seed(3)
    share = 0.15 * (inputs.amax((1, 2, 3)) - inputs.amin((1, 2, 3)))[:, None, None, None]
    views = [
        found_by(
            model,
            "saliency",
            inputs + share * torch.randn(3, *model.input_size, generator=generator),
            [1, 1],
        ).fused.values
        for _ in range(3)
    ]
    assert torch.allclose(found, torch.stack(views).mean(0), atol=1e-6)
    alone = smoothed(model, "saliency", inputs[1:], "noise:3").fused.values
    assert torch.allclose(found[1:], alone, atol=1e-5)


def test_eigen_of_hirescam_is_eigengradcam() -> None:
    model = model_of("resnet")
    inputs = photographs(model.input_size, 2)
    found = smoothed(model, "hirescam", inputs, "eigen").fused.values
    expected = found_by(model, "eigengradcam", inputs, [1, 1]).fused.values
    assert np.allclose(doubles(found), doubles(expected), atol=1e-5)


def test_eigen_needs_channels() -> None:
    model = model_of("vit")
    with pytest.raises(MethodError, match=r"rollout has no channels; use it with gradcam"):
        plan_requests(model, [find_method("rollout")], smoothing=smoothing.parse_smoothing("eigen"))


@pytest.mark.parametrize("spec", ["", "noise:0", "noise:x", "noise:-2", "blur", "augment:3"])
def test_smoothing_that_there_is_not(spec: str) -> None:
    with pytest.raises(
        UsageError, match="write none, augment, noise:10, scales:160,224,320 or eigen"
    ):
        smoothing.parse_smoothing(spec)


# --- what must hold of any right implementation


@pytest.mark.parametrize("key", ["resnet", "efficientnet", "swin"])
def test_gradcam_of_a_pooled_layer_is_cam(key: str) -> None:
    """Up to relu and the number of positions: the gradient is the classifier's row over them."""
    model = model_of(key)
    inputs = photographs(model.input_size)
    cam = found_by(model, "cam", inputs).fused.values
    grad = found_by(model, "gradcam", inputs).fused.values
    positions = cam[0].numel()
    assert torch.allclose(positions * grad, cam.relu(), atol=1e-4 * float(cam.abs().max()))


def test_hirescam_is_gradcam_where_a_map_is_one_position() -> None:
    generator = torch.Generator().manual_seed(0)
    a, g = (torch.randn(3, 7, 1, 1, generator=generator) for _ in range(2))
    one, other = (find_method(name).function(a, g).sum(dim=1) for name in ("hirescam", "gradcam"))
    assert torch.allclose(one, other)


def test_finer_is_linear_in_its_target() -> None:
    model = model_of("resnet")
    inputs = photographs(model.input_size, 1)
    logits = model.network(inputs)[0]
    best, *rivals = (logits - logits.max()).abs().argsort()[:4].tolist()
    maps = [found_by(model, "cam", inputs, [c]).fused.values for c in (best, *rivals)]
    expected = maps[0] - 0.2 * (maps[1] + maps[2] + maps[3])
    found = explained(model, "cam", inputs, "finer:3").fused.values
    assert torch.allclose(found, expected, atol=1e-4 * float(maps[0].abs().max()))
