"""Faithfulness: known answers, properties, and independent second implementations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve
from torch import Tensor

from camcli.core.correlation import compute_spearman
from camcli.core.errors import UsageError
from camcli.core.types import ImageSource, Transform
from camcli.evaluation.faithfulness.evidence_board import EvidenceBoard
from camcli.evaluation.faithfulness.evidence_lines import evidence_from_json, evidence_to_json
from camcli.evaluation.faithfulness.faithfulness_metrics import METRICS, parse_metrics
from camcli.evaluation.faithfulness.faithfulness_options import (
    Blur,
    parse_baselines,
    parse_blur,
    parse_sanity_checks,
)
from camcli.evaluation.faithfulness.fills import blur_image, create_fills
from camcli.evaluation.faithfulness.linear_fill import fill_linearly
from camcli.evaluation.faithfulness.map_similarity import (
    compare_map_ranks,
    compute_similarity_map,
    compute_ssim,
)
from camcli.evaluation.faithfulness.masked_passes import PassPlan, find_rank_owners
from camcli.evaluation.faithfulness.metric_values import (
    compute_area,
    compute_drop,
    compute_insertion,
    compute_road,
    compute_saco,
    compute_step_counts,
)
from camcli.evaluation.faithfulness.pass_runner import PassRunner
from camcli.evaluation.faithfulness.pixel_ranks import (
    NEVER,
    create_tie_order,
    rank_pixels,
)
from camcli.evaluation.faithfulness.scored_image import (
    ImageEvidence,
    PixelMap,
    PreparedImage,
)
from camcli.evaluation.faithfulness.weight_shuffling import list_network_parts, shuffle_weights
from camcli.evaluation.predictions import EvaluationRow

ADDITIVE = torch.tensor([[[0.4, 0.3], [0.2, 0.1]]])  # (1,2,2): the confidence is the sum


def create_additive_model() -> Any:
    """A model whose confidence for class 0 is the sum of its input."""

    def network(inputs: Tensor) -> Tensor:
        total = inputs.sum(dim=(1, 2, 3))
        return torch.stack([total, torch.zeros_like(total)], dim=1)

    return SimpleNamespace(
        network=network, device=torch.device("cpu"), to_probabilities=lambda logits: logits
    )


def create_row(name: str = "map", *, baseline: bool = False) -> EvaluationRow:
    return EvaluationRow("toy", name, (), baseline=baseline)


def prepare_image(
    image: Tensor, maps: list[Tensor], *, name: str = "a.jpg", window: Any = None, seed: int = 0
) -> PreparedImage:
    """An image with maps at its own size."""
    channels, height, width = image.shape
    left, top, right, bottom = window = window or (0, 0, width, height)
    order = create_tie_order(name, (right - left) * (bottom - top), seed)
    transform = Transform((height, width), (0.0,) * channels, (1.0,) * channels)

    def normalize(values: Tensor) -> Tensor:
        span = values.max() - values.min()
        return (values - values.min()) / span if span > 0 else torch.zeros_like(values)

    return PreparedImage(
        source=ImageSource(Path(name), name, ""),
        image=image,
        class_index=0,
        window=window,
        fills=create_fills(image, transform, Blur(), seed),
        pixel_maps=[
            PixelMap(create_row(f"map{n}"), m, normalize(m), rank_pixels(m, window, order), "ok")
            for n, m in enumerate(maps)
        ],
    )


def score(images: list[PreparedImage], metrics: str, *, batch: int = 8, **plan: int) -> list[Any]:
    runner = PassRunner(create_additive_model(), PassPlan(parse_metrics(metrics), **plan), batch)
    return list(runner.iter_evidence(images))


def compute(evidence: ImageEvidence, name: str, row: int = 0) -> float:
    metric = next(metric for metric in METRICS if metric.name == name)
    value = metric.compute(evidence, evidence.rows[row])
    assert value is not None
    return value


def test_known_answers_of_an_additive_model() -> None:
    """x = .4 .3 / .2 .1 and m = x: deletion 1, .3, 0 -> 0.4; insertion 0, .7, 1 -> 0.6."""
    (found,) = score(
        [prepare_image(ADDITIVE, [ADDITIVE[0], -ADDITIVE[0]])], "deletion,srg_zero", steps=2
    )
    assert found.rows[0].curves["zero_morf"] == pytest.approx([1, 0.3, 0])
    assert found.rows[0].curves["zero_lerf"] == pytest.approx([1, 0.7, 0])
    assert compute(found, "deletion") == pytest.approx(0.4)
    assert compute_insertion([0, 0.5, 1], found.rows[0].curves["zero_lerf"]) == pytest.approx(0.6)
    assert compute(found, "srg_zero") == pytest.approx(0.2)
    assert compute(found, "srg_zero", row=1) == pytest.approx(-0.2)


def test_deletion_and_insertion_of_an_additive_model_sum_to_one_at_every_share() -> None:
    (found,) = score([prepare_image(ADDITIVE, [ADDITIVE[0]])], "srg_zero", steps=4)
    morf, lerf = (found.rows[0].curves[f"zero_{order}"] for order in ("morf", "lerf"))
    assert [a + b for a, b in zip(morf, reversed(lerf), strict=True)] == pytest.approx([1.0] * 5)


def test_counts_of_an_odd_number_of_pixels() -> None:
    """5 pixels .3 .25 .2 .15 .1 and S = 2: counts 0, 3, 5; curve 1, .25, 0; area 0.425."""
    assert compute_step_counts(5, 2) == [0, 3, 5]
    values = torch.tensor([[[0.3, 0.25, 0.2, 0.15, 0.1]]])
    (found,) = score([prepare_image(values, [values[0]])], "deletion", steps=2)
    assert found.rows[0].curves["zero_morf"] == pytest.approx([1, 0.25, 0])
    assert compute(found, "deletion") == pytest.approx(0.425)


def test_known_answers_of_single_formulas() -> None:
    assert compute_road([0.6, 0.3, 0.1], [0.9, 0.7, 0.4]) == pytest.approx(1 / 6)
    assert compute_area([0, 0.6, 1], [1, 0.25, 0]) == pytest.approx(0.425)
    assert compute_drop(0.8, 0.6) == pytest.approx(25)
    assert compute_drop(0.8, 0.9) == 0
    assert compute_saco([3, 2, 1], [0.5, 0.1, 0.3]) == pytest.approx(0.5)
    assert compute_spearman([4, 3, 2, 1], [0.4, 0.1, 0.3, 0.2]) == pytest.approx(0.4)
    assert compute_spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9487, abs=1e-4)
    assert compute_spearman([1, 1, 1], [1, 2, 3]) is None
    assert compute_saco([1, 1], [0, 1]) is None


def test_drop_increase_and_coverage_by_hand() -> None:
    """The mask is (x - .1) / .3: 1, 2/3, 1/3, 0; the sum falls from 1 to .4 + .2 + .2/3."""
    (found,) = score([prepare_image(ADDITIVE, [ADDITIVE[0]])], "drop,increase,coverage")
    left = 0.4 + 0.3 * 2 / 3 + 0.2 / 3
    assert compute(found, "drop") == pytest.approx(100 * (1 - left), abs=1e-4)
    assert compute(found, "increase") == 0
    assert compute(found, "coverage") == pytest.approx(0.5)
    negative = prepare_image(-ADDITIVE, [ADDITIVE[0]])
    (other,) = score([negative], "increase")
    assert compute(other, "increase") == 100


def test_drop_at_half_keeps_the_more_relevant_half() -> None:
    """Without a curve it is a pass of its own, with the curve a point of it: the same value."""
    image = prepare_image(ADDITIVE, [ADDITIVE[0]])
    (alone,) = score([image], "drop_at_half")
    (shared,) = score([image], "drop_at_half,srg_zero", steps=4)
    assert compute(alone, "drop_at_half") == pytest.approx(30, abs=1e-4)
    assert compute(shared, "drop_at_half") == compute(alone, "drop_at_half")


def test_single_deletion_of_an_additive_model_is_the_sum_of_each_cell() -> None:
    values = torch.rand(1, 8, 12, generator=torch.Generator().manual_seed(0))
    (found,) = score([prepare_image(values, [values[0]])], "sds", cells=4)
    sums = [
        values[0, 2 * r : 2 * r + 2, 3 * c : 3 * c + 3].sum() for r in range(4) for c in range(4)
    ]
    assert found.cell_drops == pytest.approx([float(value) for value in sums], abs=1e-4)
    assert compute(found, "sds") == pytest.approx(1)


def test_saco_of_an_additive_model_is_one() -> None:
    values = torch.rand(1, 10, 10, generator=torch.Generator().manual_seed(0))
    (found,) = score([prepare_image(values, [values[0]])], "saco")
    groups = values.flatten().sort(descending=True).values.reshape(10, 10)
    drops = (groups - values.mean()).sum(dim=1)
    assert list(found.rows[0].group_drops) == pytest.approx(drops.tolist(), abs=1e-4)
    assert compute(found, "saco") == pytest.approx(1)


def test_a_map_of_mostly_zeros_removes_exactly_the_asked_pixels() -> None:
    """pytorch-grad-cam removes all pixels at 50 % of such a map."""
    values = torch.zeros(20, 20)
    values.flatten()[:160] = torch.rand(160, generator=torch.Generator().manual_seed(0)) + 0.1
    ones = torch.ones(1, 20, 20)
    (found,) = score([prepare_image(ones, [values])], "srg_zero", steps=10)
    for order in ("morf", "lerf"):
        curve = found.rows[0].curves[f"zero_{order}"]
        assert curve == pytest.approx([400 - count for count in compute_step_counts(400, 10)])
    assert found.rows[0].tied_share == pytest.approx(0.6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["exp", "cube", "scale"]))
def test_increasing_transforms_of_a_map_change_nothing(seed: int, kind: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 9, (6, 7), generator=generator).double()
    changed = {"exp": values.exp(), "cube": values**3, "scale": 5 * values - 3}[kind]
    order = create_tie_order("a.jpg", 42, 0)
    first, second = (rank_pixels(v, (0, 0, 7, 6), order) for v in (values, changed))
    assert torch.equal(first.most_first, second.most_first)
    assert torch.equal(first.most_first + first.least_first, torch.full((6, 7), 41).int())


def test_a_reversed_map_has_the_opposite_road_where_nothing_ties() -> None:
    values = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(1))
    image = prepare_image(values, [values.sum(dim=0), -values.sum(dim=0)])
    (found,) = score([image], "road")
    assert compute(found, "road") == pytest.approx(-compute(found, "road", row=1), abs=1e-5)


def test_a_constant_map_has_a_mean_road_of_zero() -> None:
    values = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1))
    images = [prepare_image(values, [torch.zeros(8, 8)], name=f"{n}.jpg") for n in range(200)]
    roads = np.array([compute(found, "road") for found in score(images, "road", batch=64)])
    assert abs(roads.mean()) < 3 * roads.std() / np.sqrt(len(roads))


def test_padding_is_never_removed() -> None:
    image = prepare_image(torch.ones(1, 6, 6), [torch.rand(6, 6)], window=(1, 2, 5, 6))
    ranks = image.pixel_maps[0].ranks
    assert ranks.pixel_count == 16
    assert (ranks.most_first[:2] == NEVER).all()
    assert (ranks.least_first[:, 0] == NEVER).all()
    (found,) = score([image], "srg_zero", steps=4)
    assert found.rows[0].curves["zero_morf"] == pytest.approx([36, 32, 28, 24, 20])


def test_a_batch_equals_its_singles_and_other_rows_change_nothing() -> None:
    generator = torch.Generator().manual_seed(2)
    pairs = [(torch.rand(3, 9, 9, generator=generator), f"{n}.jpg") for n in range(3)]
    maps = [torch.rand(9, 9, generator=generator) for _ in range(3)]
    images = [prepare_image(i, [m], name=n) for (i, n), m in zip(pairs, maps, strict=True)]
    together = score(images, "all", batch=64)
    alone = [score([image], "all", batch=1)[0] for image in reversed(images)][::-1]
    extra = [
        prepare_image(i, [m, m.flip(0)], name=n) for (i, n), m in zip(pairs, maps, strict=True)
    ]
    wider = score(extra, "all", batch=7)
    for metric in METRICS:
        values = [
            [compute(found, metric.name) for found in each] for each in (together, alone, wider)
        ]
        assert values[0] == pytest.approx(values[1], abs=1e-5)
        assert values[0] == pytest.approx(values[2], abs=1e-5)


def test_equal_ranks_run_once() -> None:
    values = torch.rand(1, 6, 6)
    image = prepare_image(values, [values[0], 2 * values[0] + 1, values[0].flip(0)])
    assert find_rank_owners(image.pixel_maps) == [0, 0, 2]
    runner = PassRunner(create_additive_model(), PassPlan(parse_metrics("deletion"), 10), 8)
    (found,) = runner.iter_evidence([image])
    assert runner.pass_count == 2 + 2 * 9  # the image, the blank, and two rows
    assert found.rows[0].curves == found.rows[1].curves != found.rows[2].curves


def test_memory_errors_halve_the_batch() -> None:
    model = create_additive_model()
    forward, sizes = model.network, []

    def network(inputs: Tensor) -> Tensor:
        sizes.append(len(inputs))
        if len(inputs) > 3:
            raise RuntimeError("CUDA out of memory")
        logits: Tensor = forward(inputs)
        return logits

    model.network = network
    image = prepare_image(ADDITIVE, [ADDITIVE[0]])
    (found,) = PassRunner(model, PassPlan(parse_metrics("deletion"), 20), 16).iter_evidence([image])
    (wanted,) = score([image], "deletion")
    assert found == wanted
    assert max(sizes[sizes.index(8) + 1 :]) < 8


# Linear imputation


def fill_slowly(image: NDArray[np.float64], missing: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The same equations as a sparse matrix, pixel by pixel, solved exactly."""
    rows, columns = np.nonzero(missing)
    number = {(y, x): n for n, (y, x) in enumerate(zip(rows, columns, strict=True))}
    matrix = lil_matrix((len(number), len(number)))
    known = np.zeros((len(number), len(image)))
    for (y, x), n in number.items():
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                place = (y + dy, x + dx)
                if (dy, dx) == (0, 0) or not (
                    0 <= place[0] < missing.shape[0] and 0 <= place[1] < missing.shape[1]
                ):
                    continue
                weight = 1 / 6 if 0 in (dy, dx) else 1 / 12
                matrix[n, n] += weight
                if place in number:
                    matrix[n, number[place]] -= weight
                else:
                    known[n] += weight * image[:, place[0], place[1]]
    filled = image.copy()
    filled[:, rows, columns] = spsolve(matrix.tocsc(), known).reshape(len(number), -1).T
    return filled


def test_linear_fill_of_single_pixels_by_hand() -> None:
    ring = torch.tensor([[[[12.0, 6, 12], [6, 0, 6], [12, 6, 12]]]])
    hole = torch.zeros(1, 3, 3, dtype=torch.bool)
    hole[0, 1, 1] = True
    assert fill_linearly(ring, hole)[0, 0, 1, 1] == pytest.approx(8.0)
    corner = torch.tensor([[[[0.0, 1], [2, 5]]]])
    hole = torch.tensor([[[True, False], [False, False]]])
    assert fill_linearly(corner, hole)[0, 0, 0, 0] == pytest.approx(2.2)


def test_linear_fill_rebuilds_a_ramp() -> None:
    ramp = (torch.arange(40.0)[:, None] * 0.5 - torch.arange(48.0) * 0.25)[None, None] / 20
    hole = torch.zeros(1, 40, 48, dtype=torch.bool)
    hole[0, 5:30, 7:41] = True
    assert torch.allclose(fill_linearly(ramp, hole, 20), ramp, atol=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(64, 64), (37, 51)])
@pytest.mark.parametrize("is_blob", [False, True])
def test_linear_fill_is_near_the_exact_solution(
    share: float, shape: tuple[int, int], *, is_blob: bool
) -> None:
    generator = torch.Generator().manual_seed(3)
    image = 2 * torch.rand(1, 3, *shape, generator=generator) - 1
    image = torch.nn.functional.avg_pool2d(image, 5, 1, 2)
    noise = torch.rand(1, 1, *((5, 6) if is_blob else shape), generator=generator)
    relevance = torch.nn.functional.interpolate(noise, shape, mode="bilinear")[0]
    missing = relevance <= relevance.flatten().quantile(share)
    exact = fill_slowly(image[0].double().numpy(), missing[0].numpy())
    assert np.abs(fill_linearly(image, missing)[0].numpy() - exact).max() < 0.005
    assert np.abs(fill_linearly(image, missing, 12)[0].numpy() - exact).max() < 1e-4


def test_fills_of_several_masks_equal_each_alone() -> None:
    image = torch.rand(1, 3, 32, 32)
    masks = torch.rand(4, 32, 32) < torch.tensor([0.1, 0.3, 0.6, 0.9])[:, None, None]
    together = fill_linearly(image.expand(4, 3, 32, 32), masks)
    for filled, mask in zip(together, masks, strict=True):
        assert torch.allclose(filled, fill_linearly(image, mask[None])[0], atol=1e-6)


# Blur


def test_blur_of_rise_is_its_notebook_kernel() -> None:
    """scipy's filter of a delta, as RISE's notebook makes it, applied with zeros outside."""
    from scipy.ndimage import gaussian_filter
    from scipy.signal import convolve2d

    delta = np.zeros((11, 11))
    delta[5, 5] = 1
    kernel = gaussian_filter(delta, 5)
    assert kernel[0, 0] / kernel[5, 5] == pytest.approx(0.876, abs=1e-3)
    image = np.random.default_rng(0).random((2, 20, 26))
    wanted = [convolve2d(channel, kernel, mode="same") for channel in image]
    found = blur_image(torch.from_numpy(image), Blur()).numpy()
    assert found == pytest.approx(np.array(wanted), abs=1e-9)


def test_a_wide_blur_keeps_a_constant_image() -> None:
    image = torch.full((3, 16, 16), 0.7, dtype=torch.float64)
    assert torch.allclose(blur_image(image, parse_blur("51:41")), image)


@pytest.mark.parametrize("text", ["", "box", "10:3", "11:0", "999:5", "11:-1"])
def test_wrong_blurs_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--blur"):
        parse_blur(text)


# The board, the lines and the options


def test_lines_hold_all_that_the_metrics_need() -> None:
    generator = torch.Generator().manual_seed(4)
    image = prepare_image(
        torch.rand(3, 9, 9, generator=generator), [torch.rand(9, 9, generator=generator)]
    )
    (found,) = score([image], "all")
    lines = [json.loads(json.dumps(line)) for line in evidence_to_json(found, "key")]
    again = evidence_from_json(lines)
    for metric in METRICS:
        assert metric.compute(again, again.rows[0]) == metric.compute(found, found.rows[0])


def test_board_compares_with_the_best_baseline_on_the_same_resamples() -> None:
    metrics = parse_metrics("deletion")
    board = EvidenceBoard(metrics, resamples=200)
    generator = torch.Generator().manual_seed(5)
    differences = []
    for n in range(12):
        image = torch.rand(1, 6, 6, generator=generator)
        maps = [image[0], torch.rand(6, 6, generator=generator), -image[0]]
        (found,) = score([prepare_image(image, maps, name=f"{n}.jpg")], "deletion", steps=6)
        rows = [
            replace(row, row=create_row(f"map{k}", baseline=k > 0))
            for k, row in enumerate(found.rows)
        ]
        found = replace(found, rows=rows)
        board.add_evidence(found)
        differences.append(compute(found, "deletion") - compute(found, "deletion", row=1))
    difference = board.compare_with_baselines(create_row("map0"))["deletion"]
    assert difference.baseline == "map1"
    assert difference.value == pytest.approx(np.mean(differences))
    assert difference.better_share == pytest.approx(np.mean(np.array(differences) < 0))
    assert difference.mark == "better"
    assert (difference.high or 0) < 0
    assert board.compute_concordance()["deletion"] > 0.8
    assert board.compute_agreement()["deletion"]["deletion"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("parse", "text"),
    [(parse_metrics, "raod"), (parse_baselines, "centre"), (parse_sanity_checks, "cascades")],
)
def test_unknown_names_are_refused_with_a_suggestion(parse: Any, text: str) -> None:
    with pytest.raises(UsageError, match="did you mean"):
        parse(text)


# Sanity


def test_shuffled_weights_keep_their_values_and_come_back() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 2))
    before = {name: (id(p), p.clone()) for name, p in network.named_parameters()}
    parts = list_network_parts(network)
    assert [part.name for part in parts] == ["1", "0"]

    def interrupt() -> None:
        with shuffle_weights(network, parts, 0):
            for name, parameter in network.named_parameters():
                original = before[name][1]
                assert torch.equal(parameter.flatten().sort()[0], original.flatten().sort()[0])
            assert not torch.equal(network.get_parameter("0.weight"), before["0.weight"][1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    for name, parameter in network.named_parameters():
        assert id(parameter) == before[name][0]
        assert torch.equal(parameter, before[name][1])


def test_ssim_is_one_for_equal_maps_and_agrees_with_a_slow_window() -> None:
    generator = np.random.default_rng(0)
    a, b = (generator.random((224, 224)).astype(np.float32) for _ in range(2))
    assert compute_ssim(a, a) == pytest.approx(1)
    offsets = np.arange(-5, 6)
    row = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(row, row) / np.outer(row, row).sum()
    low_a, low_b = (m.astype(np.float64) for m in (a, b))
    low_a, low_b = ((m - m.min()) / (m.max() - m.min()) for m in (low_a, low_b))
    values = []
    for y, x in ((50, 60), (111, 30)):
        p, q = (m[y - 5 : y + 6, x - 5 : x + 6] for m in (low_a, low_b))
        mean_p, mean_q = (window * p).sum(), (window * q).sum()
        var_p, var_q = (window * p * p).sum() - mean_p**2, (window * q * q).sum() - mean_q**2
        cov = (window * p * q).sum() - mean_p * mean_q
        values.append(
            (2 * mean_p * mean_q + 1e-4)
            * (2 * cov + 9e-4)
            / ((mean_p**2 + mean_q**2 + 1e-4) * (var_p + var_q + 9e-4))
        )
    found = compute_similarity_map(a, b)
    assert [found[50, 60], found[111, 30]] == pytest.approx(values, abs=1e-6)


def test_rank_correlation_of_maps() -> None:
    ramp = np.arange(9, dtype=np.float32).reshape(3, 3)
    assert compare_map_ranks(ramp, ramp**2) == pytest.approx(1)
    assert compare_map_ranks(ramp, -ramp) == pytest.approx(-1)
    assert compare_map_ranks(ramp, np.ones((3, 3), np.float32)) is None
