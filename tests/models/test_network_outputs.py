"""What the outputs of a network are: classes, values, probabilities, or an embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import PHOTOS, lively, noise
from PIL import Image
from torch import Tensor, nn

import camcli
from camcli.core.errors import MethodError, UsageError
from camcli.core.types import Transform
from camcli.models.introspection.embeddings import is_text_tower_name
from camcli.models.introspection.logits import find_logits
from camcli.models.model import Model, wrap_network

SIZE = (48, 64)
PHOTO = PHOTOS[0]
FEATURES = "3"  # the name of the last map in the networks below


class Ending(nn.Sequential):
    """Two convolutions, the mean, and a linear layer of K outputs; then a function of these."""

    def __init__(self, outputs: int, end: Any = None, bias: float = 0.0) -> None:
        super().__init__(
            *(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 6, 3, 2), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, outputs)),
        )
        torch.manual_seed(3)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)
        self[6].bias.data.fill_(bias)  # type: ignore[operator]
        self.end = [end]

    def forward(self, images: Tensor) -> Any:
        outputs: Any = super().forward(images)  # type: ignore[no-untyped-call]
        return self.end[0](outputs) if self.end[0] else outputs


def inputs_of(model: Model) -> Tensor:
    """The photograph as the network gets it, by Pillow alone."""
    height, width = SIZE
    with Image.open(PHOTO) as photo:
        small = photo.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    values = torch.from_numpy(np.asarray(small, np.float32) / 255).permute(2, 0, 1)
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (model.transform.mean, model.transform.std)
    )
    return ((values - mean) / std)[None]


def gradcam_by_hand(network: Any, inputs: Tensor, sign: float, index: int = 0) -> np.ndarray:
    """Grad-CAM of +y or -y of the linear layer's output, with autograd alone."""
    layers = list(network)
    features = nn.Sequential(*layers[:4])(inputs).detach().requires_grad_()
    y = nn.Sequential(*layers[4:])(features)[0, index]
    (gradient,) = torch.autograd.grad(sign * y, features)
    weighted = gradient.mean(dim=(2, 3), keepdim=True) * features
    found: np.ndarray = weighted.sum(dim=1).relu()[0].detach().numpy()
    return found


@pytest.mark.parametrize(("target", "sign"), [("predicted", 1), ("high", 1), ("low", -1)])
def test_a_regression_is_explained_for_its_value(target: str, sign: int) -> None:
    network = Ending(1, bias=-3).eval()
    model = camcli.wrap(network, size=SIZE, head="regression")
    (found,) = camcli.explain(model, PHOTO, "gradcam", target=target, layers=FEATURES)
    with torch.no_grad():
        y = float(network(inputs_of(model))[0, 0])
    assert y < 0
    assert found.score == pytest.approx(y, abs=1e-3)
    expected = gradcam_by_hand(network, inputs_of(model), sign)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found.raw, expected, rtol=1e-3, atol=1e-3 * expected.max())
    line = found.to_dict()
    assert (line["score_kind"], line["direction"]) == ("value", "low" if sign < 0 else "high")
    assert "predicted" not in line
    label = "low y" if sign < 0 else "y"
    assert found.found.title == f"{label} = {y:.2f}"


def test_cam_of_a_regression_has_the_value_as_its_mean() -> None:
    network = Ending(1, bias=-3).eval()
    model = camcli.wrap(network, size=SIZE, head="regression")
    (found,) = camcli.explain(model, PHOTO, "cam")
    assert found.raw.mean() - 3 == pytest.approx(found.score, abs=1e-4)


def test_several_values_are_outputs_by_name() -> None:
    network = Ending(3).eval()
    model = camcli.wrap(network, size=SIZE, head="regression", labels=["age", "weight", "length"])
    every = camcli.explain(model, PHOTO, "gradcam", layers=FEATURES)
    assert [found.class_name for found in every] == ["age", "weight", "length"]
    (one,) = camcli.explain(model, PHOTO, "gradcam", target="low:weight", layers=FEATURES)
    expected = gradcam_by_hand(network, inputs_of(model), -1, index=1)
    np.testing.assert_allclose(one.raw, expected, rtol=1e-3, atol=1e-5)


def test_a_single_output_is_asked_about_unless_two_names_tell() -> None:
    network = Ending(1).eval()
    model = camcli.wrap(network, size=SIZE)
    assert model.output_kind == "undecided"
    with pytest.raises(UsageError, match=r"--head sigmoid.*--head regression"):
        camcli.explain(model, PHOTO, "gradcam")
    named = camcli.wrap(network, size=SIZE, labels=["no", "yes"])
    no, yes = camcli.explain(named, PHOTO, "gradcam", target=["no", "yes"], layers=FEATURES)
    with torch.no_grad():
        z = network(inputs_of(named))[0, 0]
    assert yes.score == pytest.approx(float(z.sigmoid()), abs=1e-3)
    assert no.score == pytest.approx(1 - yes.score, abs=1e-5)
    assert (no.is_predicted, yes.is_predicted) == (bool(z <= 0), bool(z >= 0))
    for found, sign in ((no, -1), (yes, 1)):
        expected = gradcam_by_hand(network, inputs_of(named), sign)
        np.testing.assert_allclose(found.raw, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("end", [torch.sigmoid, nn.Sigmoid(), lambda y: y.sigmoid()[:, 0]])
def test_a_sigmoid_inside_the_network_is_not_computed_twice(end: Any) -> None:
    network = Ending(1, end, bias=-2).eval()
    model = camcli.wrap(network, size=SIZE, labels=["no", "yes"])
    assert "its own sigmoid" in model.note
    no, yes = camcli.explain(model, PHOTO, "gradcam", target=["no", "yes"], layers=FEATURES)
    with torch.no_grad():
        p = float(network(inputs_of(model)).flatten()[0])
    assert p < 0.5
    assert (no.score, yes.score) == (pytest.approx(1 - p, abs=1e-4), pytest.approx(p, abs=1e-4))
    assert (no.is_predicted, yes.is_predicted) == (True, False)
    expected = gradcam_by_hand(network, inputs_of(model), 1)  # of the logit before the sigmoid
    np.testing.assert_allclose(yes.raw, expected, rtol=1e-3, atol=1e-4)


def test_a_softmax_inside_the_network_is_not_computed_twice() -> None:
    network = Ending(4, lambda y: y.softmax(dim=1)).eval()
    model = camcli.wrap(network, size=SIZE)
    assert (model.output_kind, "its own softmax" in model.note) == ("softmax", True)
    found = camcli.explain(model, PHOTO, "gradcam", target="all")
    with torch.no_grad():
        p = network(inputs_of(model))[0]
    np.testing.assert_allclose([each.score for each in found], p.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    "end",
    [
        lambda y: y.sigmoid() * 0.5 + 0.2,  # in [0, 1], but no sigmoid is the last operation
        lambda y: y.clamp(0.1, 0.9),
    ],
)
def test_values_from_0_to_1_alone_tell_nothing(end: Any) -> None:
    model = wrap_network("values", Ending(1, end), Transform(SIZE))
    assert model.output_kind == "undecided"
    asked = wrap_network("values", Ending(1, end), Transform(SIZE), head="probabilities")
    assert asked.output_kind == "sigmoid"
    p = Ending(1, end).eval()(noise(2, SIZE))[:, 0]
    assert torch.allclose(asked.to_probabilities(asked.network(noise(2, SIZE)))[:, 1], p, atol=1e-5)


@pytest.mark.parametrize(
    ("head", "says"),
    [("probabilities", "not all from 0 to 1"), ("softmax", "a single output")],
)
def test_a_head_that_does_not_fit_is_refused(head: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        camcli.wrap(Ending(1, bias=-9), size=SIZE, head=head)


def test_an_unknown_head_is_refused() -> None:
    unknown: Any = "tanh"
    with pytest.raises(UsageError, match="choose from softmax, sigmoid"):
        camcli.wrap(Ending(1), size=SIZE, head=unknown)


@pytest.mark.parametrize("first", [torch.softmax, lambda y, _dim: y.sigmoid()])
def test_of_probabilities_and_logits_the_logits_count(first: Any) -> None:
    y = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    assert find_logits((first(y, 1), y)) is y
    assert find_logits([y, first(y, 1)]) is y
    network = Ending(5, lambda y: (first(y, 1), y))
    model = wrap_network("pair", network, Transform(SIZE))
    plain = Ending(5).eval()
    assert torch.allclose(model.network(noise(2, SIZE)), plain(noise(2, SIZE)), atol=1e-5)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_a_timm_network_without_a_classifier_runs_what_needs_no_class(name: str) -> None:
    sized: dict[str, Any] = {"img_size": SIZE} if name == "test_vit" else {}
    network = lively(timm.create_model(name, num_classes=0, **sized))
    model = camcli.wrap(network, size=SIZE)
    assert (model.output_kind, model.labels.names) == ("embedding", ())
    whole = lively(timm.create_model(name, num_classes=7, **sized))
    whole.load_state_dict(network.state_dict(), strict=False)
    layer = model.layers[-3].name
    for method in ("eigencam", "fem"):
        (bare,) = camcli.explain(model, PHOTO, method, layers=layer)
        (own,) = camcli.explain(camcli.wrap(whole, size=SIZE), PHOTO, method, layers=layer)
        np.testing.assert_allclose(bare.raw, own.raw, rtol=1e-3, atol=1e-4)
    line = bare.to_dict()
    assert (line["class_index"], line["class_name"], line["score"]) == (None, None, None)
    assert "no class" in repr(bare)
    with pytest.raises(MethodError, match=r"has no classes: write --target like:.*eigencam"):
        camcli.explain(model, PHOTO, "gradcam")
    with pytest.raises(UsageError, match="the model has no classes"):
        camcli.explain(model, PHOTO, "eigencam", target="tabby")


def test_a_network_without_classes_has_a_default_method() -> None:
    network = lively(timm.create_model("test_vit", num_classes=0, img_size=SIZE))
    (found,) = camcli.explain(camcli.wrap(network, size=SIZE), PHOTO)
    assert found.method == "attention"
    (other,) = camcli.explain(camcli.wrap(nn.Sequential(*list(Ending(5))[:4]), size=SIZE), PHOTO)
    assert (other.method, other.class_index) == ("eigencam", None)


def test_timm_tells_its_towers_from_classifiers() -> None:
    """All 113 published weights whose number of classes is the width of a projection."""
    widths = {384, 512, 640, 768, 1024, 1152, 1280}
    counts = {name: timm.get_pretrained_cfg(name).num_classes for name in timm.list_pretrained()}  # type: ignore[union-attr]
    found = {n for n, count in counts.items() if count and is_text_tower_name(n)}
    assert found == {name for name, count in counts.items() if count in widths}
    assert len(found) >= 113


def test_a_clip_tower_is_no_classifier_unless_the_user_says_so() -> None:
    name = "vit_base_patch32_clip_224.openai"
    options: dict[str, Any] = {"depth": 1, "embed_dim": 48, "num_heads": 2}
    network = lively(timm.create_model(name, **options))
    assert camcli.wrap(network).output_kind == "embedding"
    assert camcli.wrap(network, head="softmax").output_kind == "softmax"
    tuned = lively(timm.create_model(name, num_classes=5, **options))
    assert camcli.wrap(tuned).output_kind == "softmax"
