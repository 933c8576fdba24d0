"""The reference methods themselves: properties of a map that follow from its equation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
import timm
import torch
from conftest import lively
from reference.maps import Doubles, bilinear, minmax, weighted
from torch import nn
from torch.nn import functional

SIZE = (32, 48)


def drawn(*shape: int, seed: int = 0) -> Doubles:
    return np.random.default_rng(seed).normal(size=shape)


def softmaxed(heads: int, tokens: int, seed: int) -> Doubles:
    powers = np.exp(drawn(heads, tokens, tokens, seed=seed))
    return np.asarray(powers / powers.sum(axis=2, keepdims=True))


def probability(image: Doubles) -> float:
    return float(1 / (1 + np.exp(-image.mean())))


class TestGradient:
    def test_smoothgradcam_plus_plus_without_noise_is_gradcam_plus_plus(self) -> None:
        a, g = np.abs(drawn(4, 3, 5)), drawn(4, 3, 5, seed=1)
        np.testing.assert_allclose(
            reference.gradient.smoothgradcam_plus_plus(a, [g, g, g]),
            reference.gradient.gradcam_plus_plus(a, g),
        )

    def test_shapleycam_of_a_linear_score_is_gradcam(self) -> None:
        a, g = drawn(4, 3, 5), drawn(4, 3, 5, seed=1)
        np.testing.assert_allclose(
            reference.gradient.shapleycam(a, g, np.zeros(a.shape)), reference.gradient.gradcam(a, g)
        )

    def test_shapleycam_of_a_quadratic_score_weighs_by_half_of_what_grows(self) -> None:
        a = drawn(4, 3, 5)  # score = sum a^2 / 2: g = a and h = a
        np.testing.assert_allclose(
            reference.gradient.shapleycam(a, a, a), reference.gradient.gradcam(a, a / 2), atol=1e-15
        )

    def test_fullgrad_is_the_sum_of_its_layers_each_in_its_own_scale(self) -> None:
        x, g, term = drawn(3, 8, 6), drawn(3, 8, 6, seed=1), drawn(5, 4, 3, seed=2)
        alone = reference.gradient.fullgrad(x, g, [])
        both = reference.gradient.fullgrad(x, g, [7 * term, np.ones((2, 2, 2))])
        share = minmax(np.abs(term).reshape(5, 12)).reshape(term.shape)
        expected = sum(bilinear(channel, (8, 6)) for channel in share)
        np.testing.assert_allclose(both - alone, expected)


class TestActivation:
    def test_eigencam_projects_on_the_covariance_s_first_eigenvector(self) -> None:
        a = drawn(6, 4, 5)
        rows = a.reshape(6, 20).T
        _, vectors = np.linalg.eigh(np.cov(rows.T))
        p = (rows - rows.mean(axis=0)) @ vectors[:, -1]
        p *= np.sign(p @ rows.sum(axis=1))
        np.testing.assert_allclose(reference.activation.eigencam(a).ravel(), np.maximum(p, 0))
        g = drawn(6, 4, 5, seed=1)
        np.testing.assert_array_equal(
            reference.activation.eigengradcam(a, g), reference.activation.eigencam(a * g)
        )

    def test_kpcacam_is_kernel_pca_with_a_sigmoid_kernel(self) -> None:
        from sklearn.decomposition import KernelPCA

        a = np.abs(drawn(6, 4, 5))
        rows = a.reshape(6, 20).T
        rows = rows - rows.mean(axis=0)
        p = KernelPCA(1, kernel="sigmoid", gamma=1 / 6, coef0=1).fit_transform(rows)[:, 0]
        p *= np.sign(p @ a.sum(axis=0).ravel())
        np.testing.assert_allclose(reference.activation.kpcacam(a).ravel(), np.maximum(p, 0))

    def test_fem_counts_the_pixels_that_stand_out(self) -> None:
        a = np.zeros((2, 4, 5))
        a[0, 1, 2] = 1.0
        np.testing.assert_allclose(reference.activation.fem(a), a[0] / 20)
        np.testing.assert_array_equal(reference.activation.fem(a, k=5.0), 0)

    def test_randomcam_weighs(self) -> None:
        a = drawn(2, 3, 4)
        np.testing.assert_allclose(
            reference.activation.randomcam(a, [1, -1]), np.maximum(a[0] - a[1], 0)
        )


class TestPerturbation:
    def test_masks_are_enlarged_pixel_by_pixel(self) -> None:
        a, x = drawn(3, 3, 4), drawn(3, 8, 10)
        a[1] = 0.1
        masks = dict(reference.perturbation._masks(a, x))
        assert list(masks) == [0, 2]
        np.testing.assert_allclose(masks[2], minmax(bilinear(a[2], (8, 10))), atol=1e-12)

    def test_variants_of_scorecam_meet(self) -> None:
        a, x = drawn(3, 3, 4), drawn(3, 8, 10)
        once = reference.perturbation.scorecam(a, x, probability)
        silent = [np.zeros((8, 10))] * 3
        np.testing.assert_allclose(reference.perturbation.sscam(a, x, probability, silent), once)
        np.testing.assert_allclose(reference.perturbation.iscam(a, x, probability, 1), once)

    def test_scorecam_with_the_same_score_everywhere_is_the_sum(self) -> None:
        a, x = drawn(3, 3, 4), drawn(3, 8, 10)
        m = reference.perturbation.scorecam(a, x, lambda _: 0.5)
        np.testing.assert_allclose(m, np.maximum(a.sum(axis=0) / 2, 0), atol=1e-15)

    def test_iscam_climbs_by_triangular_numbers(self) -> None:
        a, x = np.eye(2)[None], np.ones((3, 2, 2))
        seen: list[float] = []

        def brightest(image: Doubles) -> float:
            seen.append(float(image.max()))
            return seen[-1]

        m = reference.perturbation.iscam(a, x, brightest, 4)
        np.testing.assert_allclose(seen, [0.25, 0.75, 1.5, 2.5])
        np.testing.assert_allclose(m, np.eye(2) * 1.25)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_ablationcam_of_a_linear_score_shares_it_out(self, sign: int) -> None:
        a, g = drawn(4, 3, 5), sign * drawn(4, 3, 5, seed=1)
        shares = (a * g).sum(axis=(1, 2))
        m = reference.perturbation.ablationcam(a, lambda b: float((b * g).sum()))
        np.testing.assert_allclose(m, weighted(a, list(shares / abs(shares.sum()))))

    def test_occlusion_finds_the_pixel_that_counts(self) -> None:
        x = np.ones((3, 7, 9))
        m = reference.perturbation.occlusion(x, lambda image: float(image[:, 6, 8].sum()), 3, 2)
        expected = np.zeros((7, 9))
        expected[6, 8] = expected[5, 8] = expected[6, 7] = expected[5, 7] = 3.0
        expected[4, 8] = expected[4, 7] = expected[6, 6] = expected[5, 6] = 1.5
        expected[4, 6] = 0.75
        np.testing.assert_allclose(m, expected)
        assert reference.perturbation._starts(8, 3, 2) == [0, 2, 4, 5]
        assert reference.perturbation._starts(7, 3, 2) == [0, 2, 4]

    def test_rise_of_a_constant_is_the_share_of_masks_that_show_a_pixel(self) -> None:
        masks = [np.ones((4, 5)), np.zeros((4, 5))]
        np.testing.assert_allclose(
            reference.perturbation.rise(drawn(3, 4, 5), lambda _: 0.3, masks, 0.5), 0.3
        )


class TestAttention:
    matrices = tuple(softmaxed(2, 7, seed) for seed in range(3))
    gradients = tuple(drawn(2, 7, 7, seed=seed) for seed in range(3, 6))

    def test_rollouts_keep_rows_of_sum_one(self) -> None:
        plain = reference.attention.rollout(self.matrices)
        by_gradient = reference.attention.gradrollout(self.matrices, self.gradients)
        np.testing.assert_allclose(plain.sum(axis=1), 1)
        np.testing.assert_allclose(by_gradient.sum(axis=1), 1)
        steps = [(matrix.mean(axis=0) + np.eye(7)) / 2 for matrix in self.matrices]
        np.testing.assert_allclose(plain, steps[2] @ steps[1] @ steps[0])

    def test_gradrollout_of_gradient_one_is_rollout(self) -> None:
        ones = [np.ones((2, 7, 7))] * 3
        np.testing.assert_allclose(
            reference.attention.gradrollout(self.matrices, ones),
            reference.attention.rollout(self.matrices),
        )

    def test_chefer_without_gradients_is_the_identity(self) -> None:
        zeros = [np.zeros((2, 7, 7))] * 3
        np.testing.assert_array_equal(reference.attention.chefer(self.matrices, zeros), np.eye(7))

    def test_chefer_multiplies_from_the_left(self) -> None:
        m = reference.attention.chefer(self.matrices, self.gradients)
        steps = [
            np.eye(7) + np.maximum(a * g, 0).mean(axis=0)
            for a, g in zip(self.matrices, self.gradients, strict=True)
        ]
        np.testing.assert_allclose(m, steps[2] @ steps[1] @ steps[0])

    def test_legrad_of_positive_gradients_is_their_mean(self) -> None:
        m = reference.attention.legrad([np.abs(g) for g in self.gradients])
        np.testing.assert_allclose(m, sum(np.abs(g).mean(axis=(0, 1)) for g in self.gradients))
        np.testing.assert_array_equal(reference.attention.legrad([-np.abs(self.gradients[0])]), 0)

    def test_reading_drops_the_prefix(self) -> None:
        matrix = self.matrices[0][0]
        both = reference.attention.read(matrix, [2, 4], 1, (2, 3))
        np.testing.assert_allclose(both.ravel(), (matrix[2, 1:] + matrix[4, 1:]) / 2)
        np.testing.assert_array_equal(
            reference.attention.read(matrix[2], [0], 3, (2, 2)).ravel(), matrix[2, 3:]
        )
        m = reference.attention.attention(self.matrices, 1, (3, 2))
        np.testing.assert_allclose(m.ravel(), self.matrices[-1].mean(axis=0)[0, 1:])


def vit(biased: bool) -> Any:
    network = lively(timm.create_model("test_vit", img_size=SIZE, num_classes=10), seed=3)
    for name, parameter in network.named_parameters():
        if name.endswith("bias") and not biased:
            parameter.data.zero_()
    return network.double().eval()


def half(product: torch.Tensor) -> torch.Tensor:
    """The product, with half of its gradient."""
    return (product + product.detach()) / 2


def normed(x: torch.Tensor, layer: Any) -> torch.Tensor:
    """LayerNorm with a deviation that has no gradient."""
    deviation = (x.var(dim=-1, correction=0, keepdim=True) + layer.eps).sqrt().detach()
    centred = x - x.mean(dim=-1, keepdim=True)
    return functional.linear(centred / deviation, layer.weight.diag(), layer.bias)


def through(block: Any, x: torch.Tensor) -> torch.Tensor:
    """A block whose gradient, times its activations, is AttnLRP's relevance."""
    attn, tokens = block.attn, x.shape[0]
    qkv = attn.qkv(normed(x, block.norm1)).unflatten(1, (3, attn.num_heads, -1))
    q, k, v = qkv.permute(1, 2, 0, 3)
    weights = (half(q @ k.mT) * attn.scale).softmax(dim=-1)
    x = x + attn.proj(half(weights @ v).permute(1, 0, 2).reshape(tokens, -1))
    hidden = block.mlp.fc1(normed(x, block.norm2))
    active = hidden * (functional.gelu(hidden) / hidden).detach()
    return torch.add(x, block.mlp.fc2(active))


class TestLrp:
    image = drawn(3, *SIZE, seed=7)

    @pytest.mark.parametrize("biased", [True, False])
    @pytest.mark.parametrize("block", [0, 3, 5])
    def test_it_is_activation_times_a_changed_gradient(self, biased: bool, block: int) -> None:
        network = vit(biased)
        with torch.no_grad():
            x = network._pos_embed(network.patch_embed(torch.from_numpy(self.image)[None]))
            after = network.blocks[: block + 1](x)[0]
        after.requires_grad_()
        x = after
        for layer in network.blocks[block + 1 :]:
            x = through(layer, x)
        logit = network.head(normed(x, network.norm)[0])[4]
        torch.testing.assert_close(logit, network(torch.from_numpy(self.image)[None])[0, 4])
        (gradient,) = torch.autograd.grad(logit, after)
        relevance = (after * gradient).detach().numpy()
        np.testing.assert_allclose(
            reference.attention.token_relevance(network, self.image, 4, block),
            relevance,
            rtol=1e-6,
            atol=1e-8 * np.abs(relevance).max(),
        )
        np.testing.assert_allclose(
            reference.attention.lrp(network, self.image, 4, block).ravel(),
            relevance.sum(axis=1)[1:],
            rtol=1e-6,
            atol=1e-8 * np.abs(relevance).max(),
        )

    @pytest.mark.parametrize("block", [0, 3, 5])
    def test_without_biases_only_a_softmax_keeps_relevance(
        self, block: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A softmax is not linear: what its Taylor series has besides J x counts as its bias."""
        kept = []
        softmax = reference.attention._softmax

        def recorded(x: Doubles, s: Doubles, r: Doubles) -> Doubles:
            handed = softmax(x, s, r)
            kept.append(float(r.sum() - handed.sum()))
            return handed

        monkeypatch.setattr(reference.attention, "_softmax", recorded)
        network = vit(biased=False)
        logit = network(torch.from_numpy(self.image)[None])[0, 4].item()
        relevance = reference.attention.token_relevance(network, self.image, 4, block)
        assert len(kept) == 5 - block
        assert relevance.sum() + sum(kept) == pytest.approx(logit, rel=1e-6)


def clamped(_: object, back: Any, __: object) -> Any:
    """A backward hook: only a positive gradient goes on."""
    return (back[0].clamp(min=0),)


class TestSaliency:
    def test_integrated_gradients_of_a_quadratic_complete(self) -> None:
        x, d, b = (np.abs(drawn(3, 4, 5, seed=seed)) for seed in range(3))
        m = reference.saliency.integratedgradients(x, lambda image: d * image + b, steps=2)
        assert m.sum() == pytest.approx(float((d * x**2 / 2 + b * x).sum()))
        np.testing.assert_allclose(m, (d * x**2 / 2 + b * x).sum(axis=0))

    def test_of_a_linear_score_they_are_input_times_gradient(self) -> None:
        x, g = drawn(3, 4, 5), drawn(3, 4, 5, seed=1)
        m = reference.saliency.integratedgradients(x, lambda _: g)
        np.testing.assert_allclose(m, reference.saliency.inputxgradient(x, g))
        np.testing.assert_allclose(m, np.abs((x * g).sum(axis=0)))
        np.testing.assert_allclose(reference.saliency.saliency(g), np.abs(g).max(axis=0))
        smooth = reference.saliency.smoothgrad(lambda _: g, [x, x + 1])
        np.testing.assert_allclose(smooth, reference.saliency.saliency(g))

    def test_smoothgrad_averages_before_it_takes_the_maximum(self) -> None:
        x = drawn(3, 4, 5)
        np.testing.assert_array_equal(
            reference.saliency.smoothgrad(lambda image: image, [x, -x]), 0
        )

    @pytest.mark.parametrize("size", [(8, 10), (7, 9)])
    def test_guided_backprop_is_torch_s_with_the_relus_clamped(self, size: tuple[int, int]) -> None:
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 5, 3, stride=2, padding=1),
            nn.ReLU(),
        ).double()
        head = drawn(5, seed=2)
        for index in (1, 3):
            network[index].register_full_backward_hook(clamped)
        x = torch.from_numpy(drawn(3, *size)).requires_grad_()
        logit = network(x[None]).mean(dim=(2, 3))[0] @ torch.from_numpy(head)
        (expected,) = torch.autograd.grad(logit, x)
        layers: list[Any] = [network[0], network[2]]
        first, second = ((c.weight.detach().numpy(), c.bias.detach().numpy()) for c in layers)
        guided = reference.saliency.guidedbackprop(x.detach().numpy(), first, second, head)
        np.testing.assert_allclose(guided, expected.numpy(), atol=1e-15)
        assert np.abs(guided).max() > 0

    def test_guided_gradcam_is_the_product(self) -> None:
        guided, m = drawn(3, 4, 6), np.abs(drawn(2, 3))
        expected = np.abs(guided).max(axis=0) * bilinear(m, (4, 6))
        np.testing.assert_allclose(reference.saliency.guided_gradcam(guided, m), expected)
