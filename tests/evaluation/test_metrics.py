"""Localisation metrics: against the protocols re-derived with OpenCV, and by hand at boundaries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from reference import wsol_evaluation
from scipy import ndimage

from camcli.core.box_iou import iou
from camcli.core.types import Box
from camcli.evaluation import baselines, scoreboard
from camcli.evaluation.datasets.annotations import (
    Annotation,
    CanvasAnnotation,
    Problem,
    annotation_to_canvas,
    iter_valid_annotations,
)
from camcli.evaluation.metrics import aggregation as tally
from camcli.evaluation.metrics import scoring as measures
from camcli.evaluation.metrics.iou import classify_error
from camcli.evaluation.metrics.regions import find_regions, quantize_map

SIDE = measures.CANVAS_SIDE
Map = NDArray[np.float32]


def spread(given: Any) -> Map:
    values = np.asarray(given, np.float32)
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def upsampled(cells: int, seed: int) -> Map:
    """What a network's map looks like: a coarse grid, bilinear."""
    grid = torch.rand(1, 1, cells, cells, generator=torch.Generator().manual_seed(seed))
    return spread(torch.nn.functional.interpolate(grid, (SIDE, SIDE), mode="bilinear")[0, 0])


def noise(height: int, width: int, seed: int, levels: int = 256) -> NDArray[np.uint8]:
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, levels, (height, width)) * (255 // max(levels - 1, 1))
    return coarse.astype(np.uint8)


def rings() -> NDArray[np.uint8]:
    grey = np.zeros((40, 40), np.uint8)
    grey[5:30, 5:30] = 200
    grey[10:20, 10:20] = 0
    grey[13:16, 13:16] = 100
    grey[33:35, 33:35] = 200
    return grey


GREYS = [
    *(quantize_map(upsampled(cells, cells)) for cells in (2, 7, 14)),
    *(noise(30, 20, seed) for seed in range(3)),
    *(noise(17, 40, seed, levels) for seed, levels in enumerate((2, 3, 5))),
    noise(1, 9, 0),
    noise(9, 1, 0),
    np.zeros((12, 12), np.uint8),
    np.full((12, 12), 255, np.uint8),
    rings(),
]


@pytest.mark.parametrize("grey", GREYS, ids=lambda g: f"{g.shape[0]}x{g.shape[1]}")
def test_regions_of_all_levels_are_those_of_a_contour_search_at_each(
    grey: NDArray[np.uint8],
) -> None:
    found = find_regions(grey)
    for level in range(255):
        contours = wsol_evaluation.contours(grey, level)
        largest = max(contours, key=cv2.contourArea) if contours else None
        box = (0, 0, 0, 0) if largest is None else wsol_evaluation.bounding(largest)
        assert tuple(found.largest_boxes[level]) == box, level
        every = {tuple(b) for b in found.all_boxes[found.box_levels == level].tolist()}
        assert every == {wsol_evaluation.bounding(c) for c in contours}, level


def placed(
    *boxes: tuple[float, float, float, float], size: tuple[int, int] = (224, 224)
) -> CanvasAnnotation:
    found, problems = annotation_to_canvas(Annotation("a", Path("a"), 0, boxes), size, SIDE)
    assert found is not None
    assert not problems
    return found


def summed(
    maps: list[Map], truths: list[CanvasAnnotation], threshold: float = 0.2
) -> tally.SumArrays:
    board = tally.MetricSums()
    for i, (values, truth) in enumerate(zip(maps, truths, strict=True)):
        scored = measures.score_map(measures.create_canvas_map(values), truth, threshold, rank=0)
        board.add_counts(tally.compute_resample_weights(str(i), 0, 0), scored.counts)
    return board.sums


def test_maxboxacc_is_that_of_the_slow_evaluator() -> None:
    rng = np.random.default_rng(0)
    size = (500, 375)
    maps, truths, slow = [], [], []
    for i in range(9):
        maps.append([upsampled(7, i), upsampled(14, i), np.zeros((SIDE, SIDE), np.float32)][i % 3])
        boxes = []
        for level in (0.5, 0.8)[: 1 + i % 2]:  # truths that some levels meet, and others do not
            found = (
                wsol_evaluation.boxes_at(maps[-1], level, multi=False)[0]
                * np.array([*size, *size])
                / SIDE
            )
            x1, y1, x2, y2 = found + rng.uniform(-40, 40, 4)
            x1, y1 = max(x1, 0.0), max(y1, 0.0)
            boxes.append((x1, y1, min(max(x2, x1 + 9), 500.0), min(max(y2, y1 + 9), 375.0)))
        truths.append(placed(*boxes, size=size))
        slow.append(np.array([wsol_evaluation.scaled(box, size) for box in boxes]))
    measured = tally.compute_metrics(summed(maps, truths))
    shown: list[Any] = list(maps)
    one = wsol_evaluation.max_box_acc(shown, slow, multi=False)
    two = wsol_evaluation.max_box_acc(shown, slow, multi=True)
    assert 0.3 < one < 0.9
    assert 0.3 < two < 0.9
    assert measured["max_box_acc"].value == pytest.approx(one, abs=1e-12)
    assert measured["max_box_acc_v2"].value == pytest.approx(two, abs=1e-12)


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.12, 0.2, 0.5, 0.999])
@pytest.mark.parametrize("cells", [3, 7, 14])
def test_the_box_at_a_threshold_is_tscams(cells: int, threshold: float) -> None:
    shown = upsampled(cells, 5)
    box = measures.find_box_at_threshold(measures.create_canvas_map(shown), threshold)
    assert tuple(box.tolist()) == wsol_evaluation.tscam_box(shown, threshold)


def test_a_blank_map_has_tscams_stand_in_box_and_points_nowhere() -> None:
    blank = measures.create_canvas_map(np.zeros((SIDE, SIDE), np.float32))
    assert measures.find_box_at_threshold(blank, 0.2).tolist() == [0, 0, 1, 1]
    scored = measures.score_map(blank, placed((0, 0, 224, 224)), 0.2, rank=0, boxes=())
    for name in ("gt_known", "pointing", "pointing_strict", "energy", "box_acc", "loc_1"):
        assert scored.counts[name] == 0, name
    assert scored.counts["cls_1"] == 1


def test_a_threshold_cuts_where_the_pixel_is_truncated() -> None:
    shown = np.zeros((SIDE, SIDE), np.float32)
    shown[50:150, 50:150] = 26 / 255  # int(0.1 * 255) = 25: q > 25 holds 26
    shown[60:80, 60:80] = 1
    assert measures.find_box_at_threshold(measures.create_canvas_map(shown), 0.1).tolist() == [
        50,
        50,
        150,
        150,
    ]
    shown[shown == np.float32(26 / 255)] = 25.9 / 255  # truncated to 25: not above 25
    assert measures.find_box_at_threshold(measures.create_canvas_map(shown), 0.1).tolist() == [
        60,
        60,
        80,
        80,
    ]


def square(x1: int, y1: int, x2: int, y2: int) -> measures.CanvasMap:
    shown = np.zeros((SIDE, SIDE), np.float32)
    shown[y1:y2, x1:x2] = 1
    return measures.create_canvas_map(shown)


def test_an_overlap_of_exactly_a_half_is_right_for_gt_known_and_not_for_loc() -> None:
    # Predicted 0..99 as corners [0, 0, 100, 100]: 101 x 101 pixels by the papers' count.
    # A truth of [0, 0, 100, 201 - 1]: 101 x 201... choose heights so that IoU is 1/2 exactly.
    truth = placed((0, 0, 100, 201))
    scored = measures.score_map(square(0, 0, 100, 100), truth, 0.2, rank=0)
    assert scored.iou == 0.5
    assert scored.counts["gt_known"] == 1
    assert scored.counts["loc_1"] == 0
    assert scored.counts["single"][100] == 1
    assert scored.counts["multi"][1, 100] == 1
    assert scored.error_type != "right"


def test_widths_count_the_last_pixel() -> None:
    one, other = np.array([[0, 0, 9, 9]]), np.array([[0, 0, 9, 19]])
    assert iou(one, other)[0, 0] == 100 / 200
    assert iou(one, other, pixel=0)[0, 0] == 81 / 171
    assert wsol_evaluation.overlap(one[0], other[0]) == iou(one, other)[0, 0]


@pytest.mark.parametrize(
    ("box", "truths", "rank", "expected"),
    [
        ([0, 0, 100, 100], [[0, 0, 100, 100]], 0, "right"),
        ([0, 0, 100, 100], [[0, 0, 100, 100]], 1, "class"),
        ([0, 0, 200, 100], [[0, 0, 80, 100], [120, 0, 200, 100]], 0, "multi-instance"),
        ([40, 40, 60, 60], [[0, 0, 100, 100]], 0, "part"),
        ([0, 0, 200, 200], [[50, 50, 100, 100]], 0, "more"),
        ([0, 0, 50, 50], [[150, 150, 200, 200]], 0, "wrong"),
        ([0, 0, 100, 100], [[80, 80, 220, 220]], 0, "wrong"),
    ],
)
def test_why_a_localisation_is_wrong(
    box: list[int], truths: list[list[int]], rank: int, expected: str
) -> None:
    assert classify_error(np.array(box), np.array(truths), rank) == expected


def test_truth_is_scaled_as_each_protocol_does() -> None:
    found = placed((10.0, 20.0, 500.0, 375.0), size=(500, 375))
    assert found.scaled_boxes.tolist() == [wsol_evaluation.scaled((10, 20, 500, 375), (500, 375))]
    assert found.clipped_boxes.tolist() == [[4, 11, 223, 223]]
    for width in range(50, 1025):  # 55 * (224 / 55) is less than 224
        whole = placed((0.0, 0.0, float(width), float(width)), size=(width, width))
        assert whole.scaled_boxes.tolist() == [[0, 0, 224, 224]]


def test_the_pointing_game_forgives_less_than_fifteen_pixels_of_the_image() -> None:
    # The maximum is at canvas pixel (100, 100), whose middle is (201, 201) of a 448-pixel image.
    point = square(100, 100, 101, 101)
    for x1, hit in ((201, 1), (201 + 14, 1), (201 + 15, 0), (201 + 16, 0)):
        truth = placed((x1, 190.0, 440.0, 210.0), size=(448, 448))
        scored = measures.score_map(point, truth, 0.2, rank=None)
        assert scored.counts["pointing"] == hit, x1
        assert scored.counts["pointing_strict"] == (x1 <= 201)
    for x2, hit in ((201 - 14 + 1, 1), (201 - 15 + 1, 0)):
        truth = placed((50, 190.0, x2, 210.0), size=(448, 448))
        assert measures.score_map(point, truth, 0.2, rank=None).counts["pointing"] == hit, x2


def test_the_level_of_the_best_threshold_is_not_picked_anew_in_resamples() -> None:
    sums = {
        "images": np.array([10.0, 5, 5, 10, 10]),
        "single": np.array([[5.0, 6], [2, 3], [3, 3], [9, 4], [1, 7]]),
    }
    metric = next(m for m in tally.METRICS if m.name == "max_box_acc")
    assert metric.compute(sums)[[0, 3, 4]].tolist() == [0.6, 0.4, 0.7]


def test_classes_of_one_image_go_together() -> None:
    one, again, other = (
        tally.compute_resample_weights(name, 50, 0) for name in ("a.jpg", "a.jpg", "b.jpg")
    )
    assert (one == again).all()
    assert not (one == other).all()


def test_a_box_smaller_than_a_pixel_of_the_canvas_has_energy() -> None:
    truth = placed((1000, 700, 1001, 702), size=(2000, 1500))
    even = measures.create_canvas_map(np.full((SIDE, SIDE), 0.5, np.float32))
    assert measures.score_map(even, truth, 0.2, None).counts["energy"] == pytest.approx(1 / SIDE**2)


def test_a_size_that_is_not_the_images_is_named() -> None:
    found, problems = annotation_to_canvas(
        Annotation("a", Path("a"), 0, ((1, 1, 9, 9),), (375, 500)), (500, 375), SIDE
    )
    assert found is None
    assert [p.kind for p in problems] == ["size is not the image's"]


def test_energy_is_the_share_within_the_boxes() -> None:
    scored = measures.score_map(square(0, 0, 100, 50), placed((50, 0, 224, 224)), 0.2, rank=None)
    assert scored.counts["energy"] == 0.5
    assert "loc_1" not in scored.counts


def test_explains_own_boxes_are_half_open_pixels_of_the_image() -> None:
    truth = placed((0, 0, 100, 100), size=(200, 200))
    for x2, right in ((50, 1), (49, 0)):
        scored = measures.score_map(square(0, 0, 9, 9), truth, 0.2, None, [Box(0, 0, x2, 100, 1.0)])
        assert scored.counts["box_acc"] == right


def test_pxap_is_average_precision() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    board, scores, truth = tally.MetricSums(), [], []
    for i in range(4):
        shown = spread(ndimage.gaussian_filter(rng.random((SIDE, SIDE)), 6))
        mask = ndimage.gaussian_filter(rng.random((300, 400)), 9) > 0.5
        ignored = np.zeros((300, 400), bool)
        ignored[:60] = True
        masks, crowd = ((lambda m=mask: m),), ((lambda m=ignored: m),)
        found, _ = annotation_to_canvas(
            Annotation("a", Path("a"), 0, (), None, masks, crowd), (400, 300), SIDE
        )
        assert found is not None
        assert found.foreground is not None
        assert found.background is not None
        board.add_counts(
            tally.compute_resample_weights(str(i), 0, 0),
            measures.score_map(measures.create_canvas_map(shown), found, 0.2, None).counts,
        )
        counted = found.foreground | found.background
        assert not counted.all()
        scores.append(shown[counted])
        truth.append(found.foreground[counted])
    exact = metrics.average_precision_score(np.concatenate(truth), np.concatenate(scores))
    assert tally.compute_metrics(board.sums)["pxap"].value == pytest.approx(exact, abs=2e-3)


def test_masks_are_sampled_as_opencv_does() -> None:
    mask = np.random.default_rng(0).random((301, 77)) > 0.5
    found, _ = annotation_to_canvas(
        Annotation("a", Path("a"), 0, (), None, ((lambda: mask),)), (77, 301), SIDE
    )
    resized = cv2.resize(mask.astype(np.uint8), (SIDE, SIDE), interpolation=0)
    assert found is not None
    assert found.foreground is not None
    assert (found.foreground == (resized > 0)).all()


def test_what_cannot_be_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    here = tmp_path / "a.jpg"
    here.touch()
    given = [
        Annotation("a.jpg", here, 0, ((5, 5, 2, 9), (1, 1, 9, 9), (0, 0, float("nan"), 4))),
        Annotation("b.jpg", tmp_path / "b.jpg", 0, ((1, 1, 9, 9),)),
        Annotation("a.jpg", here, 1, ()),
    ]
    found = list(iter_valid_annotations(given, allow_missing_images=False))
    assert [t.boxes for t in found if isinstance(t, Annotation)] == [((1, 1, 9, 9),)]
    assert sorted(p.kind for p in found if isinstance(p, Problem)) == [
        "box is inverted or empty",
        "box is inverted or empty",
        "image has no annotation",
        "image is missing",
    ]


def test_boxes_outside_the_image_and_empty_masks_are_named() -> None:
    boxes = ((300.0, 0.0, 400.0, 50.0), (150.0, 50.0, 260.0, 90.0))
    empty = (lambda: np.zeros((10, 10), bool),)
    found, problems = annotation_to_canvas(
        Annotation("a", Path("a"), 0, boxes, None, empty), (200, 100), SIDE
    )
    assert {p.kind for p in problems} == {"box is outside the image", "mask is empty"}
    assert found is not None
    assert found.image_boxes.tolist() == [[150, 50, 200, 90]]  # what reaches beyond is cut off
    assert found.foreground is None
    gone, _ = annotation_to_canvas(Annotation("a", Path("a"), 0, boxes[:1]), (200, 100), SIDE)
    assert gone is None


def test_sums_are_those_of_single_images_and_the_halves_add_up() -> None:
    maps = [upsampled(7, i) for i in range(70)]
    truths = [placed((20, 20, 120 + i, 140)) for i in range(70)]
    found = summed(maps, truths)
    every, one, other = found["images"]
    assert every == one + other == 70
    assert 20 < one < 50
    assert np.allclose(found["single"][0], found["single"][1] + found["single"][2])
    single = [
        measures.score_map(measures.create_canvas_map(m), t, 0.2, 0).counts["single"]
        for m, t in zip(maps, truths, strict=True)
    ]
    assert np.allclose(found["single"][0], np.sum(single, axis=0))


def test_intervals_are_those_of_a_share() -> None:
    board = tally.MetricSums()
    for i in range(400):
        right = np.asarray(float(i % 10 < 6))
        board.add_counts(
            tally.compute_resample_weights(str(i), 2000, 0),
            {"images": np.asarray(1.0), "gt_known": right},
        )
    found = tally.compute_metrics(board.sums)["gt_known"]
    half = 1.96 * (0.6 * 0.4 / 400) ** 0.5
    assert found.value == 0.6
    assert found.low == pytest.approx(0.6 - half, abs=0.01)
    assert found.high == pytest.approx(0.6 + half, abs=0.01)


def test_a_threshold_found_on_one_half_is_measured_on_the_other() -> None:
    sums = {
        "images": np.array([20.0, 10, 10]),
        "single": np.array([[9.0, 15, 9], [8, 5, 1], [1, 10, 8]]),
    }
    # Best on even images: level 0, 1/10 on odd ones; best on odd ones: level 1, 5/10 on even.
    metric = next(m for m in tally.METRICS if m.name == "held_out")
    assert metric.compute(sums)[0] == pytest.approx((0.1 + 0.5) / 2)


def test_nothing_is_held_out_where_a_half_is_empty() -> None:
    found = summed([upsampled(7, 1)], [placed((0, 0, 224, 224))])
    assert "held_out" not in tally.compute_metrics(found)
    some = summed([upsampled(7, i) for i in range(9)], [placed((0, 0, 224, 224))] * 9)
    assert some["images"][1] != some["images"][2]
    right = tally.compute_metrics(some)
    assert right["held_out"].value == right["max_box_acc"].value == 1


def test_intervals_of_few_images_leave_out_resamples_of_none() -> None:
    board = tally.MetricSums()
    one = measures.score_map(
        measures.create_canvas_map(upsampled(7, 1)), placed((0, 0, 224, 224)), 0.0, 0
    )
    board.add_counts(tally.compute_resample_weights("0", 200, 0), one.counts)
    found = tally.compute_metrics(board.sums)["gt_known"]
    assert found.value == found.low == found.high


def test_a_mask_too_small_for_the_canvas_is_a_box_without_pixels() -> None:
    mask = np.zeros((600, 800), bool)
    mask[1, 1] = True
    found, problems = annotation_to_canvas(
        Annotation("a", Path("a"), 0, (), None, (lambda: mask,)), (800, 600), SIDE
    )
    assert found is not None
    assert not problems
    assert found.foreground is None
    assert found.image_boxes.tolist() == [[1, 1, 2, 2]]
    assert (
        "pixels"
        not in measures.score_map(measures.create_canvas_map(upsampled(7, 1)), found, 0.2, 0).counts
    )


def test_baselines_have_not_seen_the_image_and_do_not_change() -> None:
    centre = baselines.create_center_map()
    assert centre.values.argmax() == 111 * SIDE + 111
    box = measures.find_box_at_threshold(centre, 0.5)
    assert box[0] == SIDE - box[2]
    one, again, other = (baselines.create_noise_map(n, 0).values for n in ("a", "a", "b"))
    assert (one == again).all()
    assert not (one == other).all()
    assert one.max() == 1


def test_examples_are_the_worst_the_middle_and_the_best() -> None:
    overlaps = {i: i / 10 for i in range(11)}
    found = scoreboard.choose_examples(overlaps, 3)
    assert found == {"worst": [0, 1, 2], "median": [4, 5, 6], "best": [10, 9, 8]}
    assert scoreboard.choose_examples({7: 0.5}, 3) == {"worst": [7], "median": [7], "best": [7]}
