"""LIME, KernelSHAP and XRAI, against the reference, exact Shapley values, and peers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import comb
from typing import Any

import captum.attr
import numpy as np
import pytest
import reference
import torch
from captum._utils.models.linear_model import SkLearnRidge
from conftest import Cli, noise
from lime.lime_image import LimeImageExplainer
from reference.maps import Doubles
from saliency.core import xrai as peer_xrai
from small_networks import CLASSES, assert_same, doubles, found_by, model_of, photographs
from torch import Tensor

from camcli.cli.commands import compare
from camcli.core.errors import UsageError
from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.methods import _superpixels, _surrogates, segments
from camcli.methods._superpixels import (
    cut_images,
    cut_into_overlapping_segments,
    rank_regions,
)
from camcli.methods.option_parsing import parse_methods
from camcli.methods.registry import find_method
from camcli.models.model import Model

KEYS = ["resnet", "efficientnet", "vit", "swin"]


def score_of(model: Model, target: int, logit: bool = False) -> Callable[[Doubles], float]:
    def at(image: Doubles) -> float:
        with torch.no_grad():
            logits = model.network(torch.from_numpy(image).float()[None]).double()
        return float((logits if logit else logits.softmax(dim=1))[0, target])

    return at


def slope_of(model: Model, target: int) -> Callable[[Doubles], Doubles]:
    def at(image: Doubles) -> Doubles:
        x = torch.from_numpy(image)[None].requires_grad_()
        (gradient,) = torch.autograd.grad(model.network(x)[0, target], x)
        return doubles(gradient[0])

    return at


def fill_of(name: str, x: Doubles, labels: Any) -> Doubles:
    return reference.segments.own_means(x, labels) if name == "segment" else np.zeros(x.shape)


# --- LIME


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("cut", "fill", "score"),
    [("slic", "mean", "probability"), ("grid", "segment", "logit"), ("slic", "segment", "logit")],
)
def test_lime(key: str, cut: str, fill: str, score: str) -> None:
    model = model_of(key)
    inputs = photographs(model.input_size, 2)
    options = {"segments": 10, "samples": 25, "cut": cut, "fill": fill, "score": score, "seed": 3}
    own = options | {"width": 0.4, "ridge": 0.5}
    found = found_by(model, "lime", inputs, CLASSES[:2], options=own).fused.values
    cuts = cut_images(inputs, 10, cut)
    for b, target in enumerate(CLASSES[:2]):
        x, labels = doubles(inputs[b]), cuts.labels[b].numpy()
        drawn = torch.rand(25, cuts.counts[b], generator=torch.Generator().manual_seed(3)) < 0.5
        states = [[1] * cuts.counts[b], *drawn[1:].long().tolist()]
        p, covered = score_of(model, target, score == "logit"), fill_of(fill, x, labels)
        expected = reference.segments.lime(x, p, labels, states, covered, 0.4, 0.5)
        assert_same(found[b], expected, 1e-3)
        assert expected.max() > 0


class Drawn(np.random.RandomState):
    """A source of random numbers for the authors' code that gives camcli's."""

    def __init__(self, states: Tensor) -> None:
        super().__init__(0)
        self.states = states.long().numpy()

    def randint(self, *_: Any, **__: Any) -> Any:
        return self.states.ravel()


def test_lime_is_that_of_its_authors() -> None:
    """Their whole pipeline with its defaults, but camcli's segments and random numbers."""
    model = model_of("efficientnet")
    inputs = photographs(model.input_size, 1)
    labels = cut_images(inputs, 50, "slic").labels[0].numpy()
    count = int(labels.max()) + 1

    def classify(images: Any) -> Any:
        with torch.no_grad():
            logits = model.network(torch.from_numpy(images).permute(0, 3, 1, 2).float())
        return logits.double().softmax(dim=1).numpy()

    states = _surrogates.draw_states(count, 60, 0.25, 0)
    explainer = LimeImageExplainer(random_state=Drawn(states.is_on))
    for fill, colour in (("mean", 0), ("segment", None)):
        theirs = explainer.explain_instance(
            inputs[0].permute(1, 2, 0).double().numpy(),
            classify,
            labels=[CLASSES[0]],
            top_labels=None,
            hide_color=colour,
            num_samples=60,
            segmentation_fn=lambda _image: labels,
            random_seed=0,
        )
        values = [value for _, value in sorted(theirs.local_exp[CLASSES[0]])]
        options = {"samples": 60, "fill": fill, "positive": False}
        found = found_by(model, "lime", inputs, CLASSES[:1], options=options).fused.values[0]
        assert_same(found, reference.segments.spread(values, labels), 1e-4)


def test_lime_is_captum_s_with_the_paper_s_kernel() -> None:
    """captum's own kernel compares pixels, and its Lasso sets nearly every coefficient to 0."""
    model = model_of("vit")
    inputs = photographs(model.input_size, 1)
    found = cut_images(inputs, 20, "slic")
    states = _surrogates.draw_states(found.counts[0], 40, 0.25, 0)
    rows = iter(states.is_on.long()[:, None])
    peer = captum.attr.Lime(
        lambda images: model.network(images).softmax(dim=1)[:, CLASSES[0]],
        interpretable_model=SkLearnRidge(alpha=1.0),
        similarity_func=lambda _x, _z, on, **_: float(
            np.exp(-(reference.segments.cosine_distance(on[0].tolist()) ** 2) / (2 * 0.25**2))
        ),
        perturb_func=lambda _x, **_: next(rows),
    )
    theirs = peer.attribute(inputs, feature_mask=found.labels[:, None], n_samples=40)
    options = {"segments": 20, "samples": 40, "positive": False}
    ours = found_by(model, "lime", inputs, CLASSES[:1], options=options).fused.values[0]
    assert_same(ours, doubles(theirs[0, 0]), 1e-4)


# --- KernelSHAP


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("cut", "fill", "score"), [("slic", "mean", "probability"), ("grid", "segment", "logit")]
)
def test_kernelshap_of_few_segments_is_exact(key: str, cut: str, fill: str, score: str) -> None:
    model = model_of(key)
    inputs = photographs(model.input_size, 2)
    options = {"segments": 7, "samples": 254, "cut": cut, "fill": fill, "score": score}
    shown = found_by(model, "kernelshap", inputs, CLASSES[:2], options=options).fused.values
    signed = {**options, "positive": False}
    found = found_by(model, "kernelshap", inputs, CLASSES[:2], options=signed).fused.values
    cuts = cut_images(inputs, 7, cut)
    assert 4 <= min(cuts.counts) <= max(cuts.counts) <= 8
    for b, target in enumerate(CLASSES[:2]):
        x, labels = doubles(inputs[b]), cuts.labels[b].numpy()
        p = score_of(model, target, score == "logit")
        fill_values = fill_of(fill, x, labels)
        expected = reference.segments.shapley_values(x, p, labels, fill_values)
        assert_same(found[b], reference.segments.spread(expected, labels), 1e-3)
    assert torch.equal(shown, found.relu())


@pytest.mark.parametrize("samples", [1, 4, 30, 300])
def test_shapley_values_sum_to_what_all_segments_change(samples: int) -> None:
    model = model_of("efficientnet")
    inputs = photographs(model.input_size)
    options = {"samples": samples, "positive": False, "segments": 15}
    found = found_by(model, "kernelshap", inputs, options=options).fused.values
    cuts = cut_images(inputs, 15, "slic")
    for b, target in enumerate(CLASSES):
        p = score_of(model, target)
        labels = cuts.labels[b]
        values = [torch.unique(found[b][labels == s]) for s in range(cuts.counts[b])]
        assert all(len(value) == 1 for value in values)
        change = p(doubles(inputs[b])) - p(np.zeros(inputs[b].shape))
        assert float(torch.cat(values).sum()) == pytest.approx(change, rel=1e-3)


def test_one_segment_has_all_of_the_change() -> None:
    model = model_of("resnet")
    inputs = photographs(model.input_size, 1)
    options = {"segments": 1, "cut": "grid", "positive": False}
    found = found_by(model, "kernelshap", inputs, CLASSES[:1], options=options).fused.values
    p = score_of(model, CLASSES[0])
    change = p(doubles(inputs[0])) - p(np.zeros(inputs[0].shape))
    assert torch.allclose(found, torch.full_like(found, change), rtol=1e-3)


def test_a_fit_of_drawn_states_is_that_with_a_multiplier() -> None:
    states = _surrogates.create_coalitions(9, 120, 2)
    scores = torch.rand(
        len(states.is_on), generator=torch.Generator().manual_seed(1), dtype=torch.double
    )
    expected = reference.segments.constrained_fit(
        doubles(states.is_on), doubles(states.weights), doubles(scores)
    )
    np.testing.assert_allclose(_surrogates.fit_shapley(states, scores), expected, atol=1e-9)


@pytest.mark.parametrize(("count", "samples"), [(2, 1), (3, 6), (8, 254), (9, 510), (9, 5000)])
def test_enough_samples_are_all_states_with_the_kernel_s_weights(count: int, samples: int) -> None:
    states = _surrogates.create_coalitions(count, max(samples, 2**count - 2), 0)
    assert len(states.is_on) == len(torch.unique(states.is_on, dim=0)) == 2**count
    assert states.is_on[:2].tolist() == [[False] * count, [True] * count]
    sizes = states.is_on[2:].sum(dim=1).tolist()
    kernel = [(count - 1) / (comb(count, k) * k * (count - k)) for k in sizes]
    scale = (count - 1) * doubles(states.weights[2:])
    np.testing.assert_allclose(scale, kernel, rtol=1e-9)


@pytest.mark.parametrize("count", [12, 13, 60])
def test_drawn_states_are_paired_and_follow_the_kernel(count: int) -> None:
    states = _surrogates.create_coalitions(count, 3000, 0)
    pairs = zip(states.is_on.tolist(), states.weights.tolist(), strict=True)
    rows = {tuple(row): weight for row, weight in pairs}
    assert len(rows) == len(states.is_on)
    assert 1000 < len(rows) <= 3002
    for row, weight in rows.items():
        assert rows[tuple(not on for on in row)] == pytest.approx(weight)
    sizes, weights = states.is_on[2:].sum(dim=1), states.weights[2:]
    shares = [float(weights[sizes == k].sum()) for k in range(1, count)]
    expected = [1 / (k * (count - k)) for k in range(1, count)]
    np.testing.assert_allclose(shares[0], expected[0])  # complete
    np.testing.assert_allclose(shares, expected, atol=0.1 * max(expected))
    assert sum(shares) == pytest.approx(sum(expected))
    inner = states.is_on[2:][(sizes > 2) & (sizes < count - 2)].double().mean(dim=0)
    assert float((inner - 0.5).abs().max()) < 0.1  # no segment is preferred


def test_few_states_are_not_more_than_asked_for() -> None:
    for samples in (1, 2, 10, 101, 400):
        assert len(_surrogates.create_coalitions(40, samples, 0).is_on) <= max(samples, 2) + 2


def test_captum_comes_close_to_the_exact_values() -> None:
    """captum draws with repetition, and has the sum as a heavy weight instead of a constraint."""
    model = model_of("efficientnet")
    inputs = photographs(model.input_size, 1)
    mask = cut_images(inputs, 6, "grid").labels[:, None]
    peer = captum.attr.KernelShap(lambda images: model.network(images)[:, CLASSES[0]])
    theirs = peer.attribute(inputs, feature_mask=mask, n_samples=1500, perturbations_per_eval=50)
    options = {"segments": 6, "cut": "grid", "score": "logit", "positive": False}
    ours = found_by(model, "kernelshap", inputs, CLASSES[:1], options=options).fused.values[0]
    assert_same(ours, doubles(theirs[0, 0]), 0.05)


# --- XRAI


@pytest.mark.parametrize("key", KEYS)
def test_xrai(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_superpixels, "FELZENSZWALB_SCALES", (150, 1200))  # quick
    plain = model_of(key)
    transform = replace(plain.transform, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
    model = replace(plain, transform=transform)
    inputs = photographs(model.input_size, 2).double()
    ends = [
        np.array([(end - m) / s for m, s in zip(transform.mean, transform.std, strict=True)])
        for end in (0, 1)
    ]
    model.network.double()  # in single precision, two regions may change places
    try:
        found = found_by(model, "xrai", inputs, CLASSES[:2], options={"steps": 3}).fused.values
        for b, target in enumerate(CLASSES[:2]):
            x = doubles(inputs[b])
            baselines = [np.broadcast_to(end[:, None, None], x.shape) for end in ends]
            masks = cut_into_overlapping_segments(inputs[b])
            slope = slope_of(model, target)
            expected = reference.segments.xrai(x, slope, baselines, [*masks], 3)
            assert_same(found[b], expected)
            assert len(np.unique(expected)) > 5
    finally:
        model.network.float()


@pytest.mark.parametrize("place", [0, 1])
def test_regions_are_those_of_the_authors(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the image has the size that they segment at."""
    for module, name in (
        (peer_xrai, "_FELZENSZWALB_SCALE_VALUES"),
        (_superpixels, "FELZENSZWALB_SCALES"),
    ):
        assert [*getattr(module, name)] == [50, 100, 150, 250, 500, 1200]
        monkeypatch.setattr(module, name, [250, 1200])
    image = photographs((224, 224), 2)[place]
    theirs = peer_xrai._get_segments_felzenszwalb(image.permute(1, 2, 0).numpy())
    ours = cut_into_overlapping_segments(image)
    assert len(theirs) == len(ours) > 20
    assert all(np.array_equal(a, b) for a, b in zip(theirs, ours, strict=True))


def test_xrai_comes_close_to_that_of_its_authors() -> None:
    """Their integral has equal steps, and ours few nodes; black and white are those they take."""
    model = model_of("efficientnet")
    inputs = photographs(model.input_size, 1)
    low, high = float(inputs.min()), float(inputs.max())
    mean, std = low / (low - high), 1 / (high - low)
    transform = replace(model.transform, mean=(mean,) * 3, std=(std,) * 3)

    def gradients(images: Any, call_model_args: Any = None, expected_keys: Any = None) -> Any:
        x = torch.from_numpy(images).float().permute(0, 3, 1, 2).requires_grad_()
        score = model.network(x)[:, CLASSES[0]].sum()
        (slope,) = torch.autograd.grad(score, x)
        return {"INPUT_OUTPUT_GRADIENTS": slope.permute(0, 2, 3, 1).numpy()}

    expected = peer_xrai.XRAI().GetMask(
        inputs[0].permute(1, 2, 0).numpy(),
        gradients,
        segments=[*cut_into_overlapping_segments(inputs[0])],
        extra_parameters=peer_xrai.XRAIParameters(steps=100),
        batch_size=20,
    )
    model = replace(model, transform=transform)
    found = found_by(model, "xrai", inputs, CLASSES[:1], options={"steps": 40}).fused.values[0]
    assert np.corrcoef(expected.ravel(), doubles(found).ravel())[0, 1] > 0.98


@pytest.mark.parametrize("seed", range(4))
def test_the_ranking_is_that_of_the_authors(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    attribution = drawn.normal(size=(40, 50))
    centres = drawn.integers(0, (40, 50), size=(30, 2))
    rows, cols = np.indices((40, 50))
    masks = np.stack([(rows - y) ** 2 + (cols - x) ** 2 < 60 for y, x in centres])
    theirs, _ = peer_xrai.XRAI._xrai(attribution, [*masks])
    np.testing.assert_allclose(rank_regions(attribution, masks, 50), theirs, atol=1e-12)
    np.testing.assert_allclose(
        rank_regions(attribution, masks, 50), reference.segments.rank(attribution, [*masks], 50)
    )


def test_a_ranking_keeps_the_sum_of_the_attribution() -> None:
    attribution = np.random.default_rng(0).normal(size=(30, 40))
    masks = np.zeros((2, 30, 40), np.bool_)
    masks[0, :10], masks[1, 5:12] = True, True
    found = rank_regions(attribution, masks, 1)
    assert found.sum() == pytest.approx(attribution.sum())
    assert len(np.unique(found)) == 3
    none = rank_regions(attribution, masks, 10_000)
    np.testing.assert_allclose(none, attribution.mean())


def test_black_and_white_are_those_of_the_transform() -> None:
    plain = model_of("resnet")
    transform = replace(plain.transform, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    model = replace(plain, transform=transform)
    kept: list[Tensor] = []
    found = find_method("xrai")

    def keep(_inputs: Tensor, _slope: Any, color_range: Tensor) -> Tensor:
        kept.append(color_range)
        return _inputs[:, 0]

    requests = plan_requests(model, [replace(found, function=keep, options={})])
    inputs = photographs(model.input_size, 2)
    explain_batch(model, inputs, requests, lambda _: torch.tensor([[0], [1]]))
    (ends,) = kept
    assert ends.shape == (2, 3, 1, 1)
    assert ends.flatten(1).tolist() == [[-1.0, -1.0, 0.0], [1.0, 3.0, 0.5]]


# --- segments


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("cut", ["slic", "grid"])
def test_images_are_cut_whole_and_each_by_itself(cut: str, channels: int) -> None:
    photos = photographs((90, 130))
    inputs = torch.cat([photos, photos.flip(1)], dim=1)[:, :channels]
    found = cut_images(inputs, 40, cut)
    again = cut_images(inputs, 40, cut)
    assert torch.equal(found.labels, again.labels)
    assert found.labels.shape == (3, 90, 130)
    for b, count in enumerate(found.counts):
        assert torch.unique(found.labels[b]).tolist() == [*range(count)]
        assert 15 <= count <= 60
        alone = cut_images(inputs[b : b + 1], 40, cut)
        assert torch.equal(alone.labels[0], found.labels[b])
    # The scale and the mean of the inputs do not matter.
    assert torch.equal(cut_images(4 * inputs, 40, cut).labels, found.labels)
    if cut == "slic":
        assert not torch.equal(found.labels[0], found.labels[1])


def test_superpixels_follow_edges() -> None:
    image = torch.zeros(1, 3, 96, 128)
    image[..., 70:] = 1.0
    image[:, 1, 41:] -= 0.5
    labels = cut_images(image, 40, "slic").labels[0]
    for part in (labels[:, :70], labels[:41]):
        rest = labels[:, 70:] if part.shape[1] == 70 else labels[41:]
        shared = set(torch.unique(part).tolist()) & set(torch.unique(rest).tolist())
        assert len(shared) <= 2


def test_squares_are_square() -> None:
    labels = cut_images(torch.zeros(1, 3, 90, 120), 12, "grid").labels[0]
    assert labels[::30, ::30].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert labels.flatten().bincount().tolist() == [900] * 12
    assert cut_images(torch.zeros(1, 3, 5, 300), 12, "grid").counts == (27,)  # one row


def test_an_image_without_contrast_is_cut_too() -> None:
    assert cut_images(torch.ones(1, 3, 64, 64), 16, "slic").counts[0] >= 4
    assert len(cut_into_overlapping_segments(torch.ones(3, 64, 64))) >= 6


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_overlapping_segments_of_any_number_of_channels(channels: int) -> None:
    image = torch.cat([*photographs((60, 80), 2)])[:channels]
    assert len(cut_into_overlapping_segments(image)) > 12


def test_regions_are_dilated_like_discs() -> None:
    image = photographs((224, 224), 1)[0][:, :60, :80]
    masks = cut_into_overlapping_segments(image)
    assert masks.shape[1:] == (60, 80)
    labels = np.zeros((60, 80), np.int64)
    labels[:4, 70:], labels[20:23, 30:40], labels[59, 0] = 1, 2, 4  # there is no 3
    found = [*_superpixels._iter_dilated(labels)]
    assert len(found) == 4
    for number, mask in zip((0, 1, 2, 4), found, strict=True):
        assert np.array_equal(mask, reference.segments.dilated(labels == number, 5))


@pytest.mark.parametrize("method", ["lime", "kernelshap"])
def test_a_batch_of_different_counts_equals_its_singles(method: str) -> None:
    model = model_of("resnet")
    inputs = photographs(model.input_size)
    options = {"segments": 9, "samples": 300}
    assert len(set(cut_images(inputs, 9, "slic").counts)) > 1
    together = found_by(model, method, inputs, options=options).fused.values
    for b, target in enumerate(CLASSES):
        alone = found_by(model, method, inputs[b : b + 1], [target], options=options)
        assert_same(alone.fused.values[0], doubles(together[b]), 1e-4)


@pytest.mark.parametrize("method", ["lime", "kernelshap"])
def test_negative_coefficients_are_kept_only_when_asked_for(method: str) -> None:
    model = model_of("resnet")
    inputs = photographs(model.input_size)
    options = {"segments": 12, "samples": 60}
    shown = found_by(model, method, inputs, options=options).fused.values
    signed = found_by(model, method, inputs, options=options | {"positive": False}).fused.values
    assert float(signed.min()) < 0
    assert torch.equal(shown, signed.relu())


# --- without scikit-image


@pytest.fixture
def _no_skimage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "find_spec", lambda _name: None)


@pytest.mark.usefixtures("_no_skimage")
@pytest.mark.parametrize("method", ["lime", "kernelshap:samples=9", "xrai:steps=2"])
def test_without_the_extra_one_line_says_what_to_install(
    cli: Cli, picture: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camcli.cli.commands.explain.load_chosen_model", None)  # nothing is loaded
    ran = cli("explain", picture, "--method", method, "--output", "o")
    assert ran.status == 2
    (line,) = ran.err.strip().splitlines()
    assert line.startswith(
        f"camcli: {method}: it needs scikit-image: pip install 'camcli[segments]'"
    )
    assert ("cut=grid" in line) == ("xrai" not in method)


@pytest.mark.usefixtures("_no_skimage")
def test_squares_and_a_comparison_of_all_do_without_the_extra(cli: Cli, picture: Any) -> None:
    options = ("--set", "cut=grid", "--set", "samples=4", "--save", "array", "--output", "o")
    assert cli("explain", picture, "--method", "lime", *options).status == 0
    every, must_apply = compare._choose_methods(["all"])
    names = {method.name for method in every}
    assert not must_apply
    assert "rise" in names
    assert not names & {"lime", "kernelshap", "xrai"}
    model = model_of("resnet")
    with pytest.raises(UsageError, match=r"pip install 'camcli\[segments\]'"):
        found_by(model, "xrai", noise(1, model.input_size), [0], options={"steps": 1})


def test_options_have_limits() -> None:
    for wrong in ("lime:segments=501", "lime:cut=hexagons", "kernelshap:fill=blur"):
        with pytest.raises(UsageError, match="--set"):
            parse_methods([wrong])
