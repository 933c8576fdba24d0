"""Several targets at a time: their classes, weights and maps, and which of them an image has."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PHOTOS, small
from small_networks import doubles, model_of, photographs, recorded
from torch import Tensor, nn

from camcli.core.errors import UsageError
from camcli.core.types import Failure, ImageSource, Result, Transform
from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.engine.postprocess import BatchExplanation
from camcli.engine.target_rules import TargetColumn, choose_target_columns
from camcli.engine.targets import parse_target
from camcli.io.labels import create_labels
from camcli.methods.registry import find_method
from camcli.models.model import Model, wrap_network
from camcli.runs.batch import compute_outcomes
from camcli.runs.pipeline import load_image_sample, run_pipeline
from camcli.runs.run_config import RunConfig, RunState

FOUR = create_labels(["cat", "dog", "crow", "jay"])
LOGITS = torch.tensor([[0.0, 3.0, 1.0, 2.9], [5.0, 0.0, 0.0, 0.0], [0.1, 0.0, 0.0, 0.0]])


def columns_of(spec: str | list[str], folder: str = "crow", kind: Any = "softmax") -> Any:
    target = parse_target(spec)(FOUR, kind)
    fixed = [target.find_fixed_classes(ImageSource(Path(f"/{folder}/a.jpg"), "a", "a"))] * 3
    return choose_target_columns(target, fixed, lambda found: found.softmax(dim=1), LOGITS)


def cells_of(columns: list[TargetColumn]) -> list[list[int | None]]:
    """The class of each valid cell, one list a column."""
    return [
        [index if valid else None for index, valid in zip(c.class_indices, c.is_valid, strict=True)]
        for c in (_listed(column) for column in columns)
    ]


def _listed(column: TargetColumn) -> Any:
    class Lists:
        class_indices = column.class_indices.tolist()
        is_valid = column.is_valid.tolist()

    return Lists


def test_targets_stand_side_by_side_in_their_order() -> None:
    columns = columns_of(["jay", "predicted", "folder", "0"])
    assert [column.spec for column in columns] == ["jay", "predicted", "folder", "0"]
    assert cells_of(columns) == [[3, 3, 3], [1, 0, 0], [2, 2, 2], [0, 0, 0]]


def test_all_are_all_classes_by_index() -> None:
    assert cells_of(columns_of("all")) == [[0] * 3, [1] * 3, [2] * 3, [3] * 3]


def test_above_takes_the_classes_of_that_probability() -> None:
    # softmax of (0, 3, 1, 2.9): 0.0236 0.4753 0.0643 0.4301; of the second image 0.9802.
    assert cells_of(columns_of("above:0.4")) == [[1, 0, None], [3, None, None]]
    # Without any the first column still has the most probable class, to name it.
    (only,) = columns_of("above:0.99")
    assert cells_of([only]) == [[None] * 3]
    assert only.class_indices.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("above:", "write above:0.5"),
        ("above:1.5", "write above:0.5"),
        ("above:-1", "write above:0.5"),
        ("predictd", "did you mean predicted"),
        ("fodler", "did you mean folder"),
        ("cat,dog", "repeat the option: --target 'cat' --target 'dog'"),
        ("low", "low is for --head regression"),
        ("like:nowhere.jpg", "no such image or folder"),
        ([], "target is empty"),
    ],
)
def test_targets_that_cannot_be_say_what_to_write(spec: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        parse_target(spec)(FOUR)


def test_a_similarity_goes_with_no_class() -> None:
    with pytest.raises(UsageError, match="does not go with other targets"):
        parse_target([f"like:{PHOTOS[0]}", "predicted"])


@pytest.mark.parametrize("spec", ["top:2", "above:0.5", "finer:1"])
def test_a_regression_has_no_probabilities(spec: str) -> None:
    with pytest.raises(UsageError, match="a regression has no probabilities"):
        columns_of(spec, kind="regression")


def test_a_single_output_is_asked_about() -> None:
    with pytest.raises(UsageError, match=r"--head sigmoid.*--head regression"):
        columns_of("predicted", kind="undecided")


def test_low_weighs_outputs_the_other_way() -> None:
    high, low = columns_of(["high:dog", "low:dog"], kind="regression")
    wanted = torch.tensor([[0.0, 1.0, 0.0, 0.0]] * 3)
    assert torch.equal(high.logit_weights, wanted)
    assert torch.equal(low.logit_weights, -wanted)
    assert len(columns_of("low", kind="regression")) == 4  # each output


def gradcam_by_hand(model: Model, image: Tensor, target: int) -> np.ndarray:
    (activations,), (gradients,) = recorded(model.network, ["layer4"], image, target)
    a, g = doubles(activations[0]), doubles(gradients[0])
    weights = g.mean(axis=(1, 2))
    found: np.ndarray = np.maximum(np.tensordot(weights, a, axes=1), 0)
    return found


def test_each_column_has_the_map_of_its_own_class() -> None:
    model = model_of("resnet")
    inputs = photographs(model.input_size)
    probabilities = model.network(inputs).detach().softmax(dim=1)
    ranked = probabilities.flatten().sort(descending=True).values
    limit = float(ranked[3] + ranked[4]) / 2  # four classes of three images
    target = parse_target(f"above:{limit:.9f}")(create_labels([f"c{n}" for n in range(10)]))
    choose = partial(choose_target_columns, target, [((),)] * 3, model.to_probabilities)
    requests = plan_requests(model, [find_method("gradcam")])
    (found,) = explain_batch(model, inputs, requests, choose)
    wanted = [[k for k in range(10) if p[k] >= limit] for p in probabilities]
    assert len({len(classes) for classes in wanted}) > 1  # ragged
    for b, classes in enumerate(wanted):
        shown = {int(c.target_scores.class_indices[b]): c for c in found if is_valid(c, b)}
        assert sorted(shown) == classes
        for k, column in shown.items():
            expected = gradcam_by_hand(model, inputs[b], k)
            gap = np.abs(column.fused.values[b].numpy() - expected).max()
            assert gap <= 1e-4 * np.abs(expected).max()


def is_valid(column: BatchExplanation, number: int) -> bool:
    return bool(column.target_scores.is_valid[number])


def config_for(spec: str | list[str], kind: Any = "softmax") -> RunConfig:
    from dataclasses import replace

    model = replace(small("test_resnet"), output_kind=kind)
    target = parse_target(spec)(model.labels, kind)
    return RunConfig(model, plan_requests(model, [find_method("gradcam")]), target)


def results_of(config: RunConfig) -> list[Result | Failure]:
    sources = [ImageSource(path, path.name, path.stem) for path in PHOTOS[:3]]
    return list(run_pipeline(config, sources, lambda result: result))


def test_one_class_by_two_targets_appears_once_with_the_names_of_both() -> None:
    (first, *_) = results_of(config_for("predicted"))
    assert isinstance(first, Result)
    best = first.explanations[0].class_index
    (both, *_) = results_of(config_for(["predicted", str(best), "finer:2"]))
    assert isinstance(both, Result)
    plain, finer = both.explanations
    assert (plain.class_index, plain.targets) == (best, ("predicted", str(best)))
    assert (finer.class_index, finer.targets) == (best, ("finer:2",))
    assert len(finer.rival_classes) == 2
    assert np.array_equal(plain.fused_map.values, first.explanations[0].fused_map.values)


def test_the_predicted_class_of_a_softmax_and_of_sigmoids() -> None:
    for outcome in results_of(config_for("all")):
        assert isinstance(outcome, Result)
        scores = [found.score for found in outcome.explanations]
        marked = [found.is_predicted for found in outcome.explanations]
        assert marked == [score == max(scores) for score in scores]
    for outcome in results_of(config_for("all", "sigmoid")):
        assert isinstance(outcome, Result)
        for found in outcome.explanations:
            assert found.is_predicted == (found.score >= 0.5)


def test_an_image_without_any_class_fails_and_says_the_highest() -> None:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = wrap_network("even", nn.Sequential(*layers, nn.Linear(8, 4)), Transform((32, 32)))
    requests = plan_requests(model, [find_method("gradcam")])
    config = RunConfig(model, requests, parse_target("above:0.9")(model.labels))
    sample = load_image_sample(config, ImageSource(PHOTOS[0], "a.jpg", "a"))
    assert not isinstance(sample, Failure)
    ((failure,),) = compute_outcomes(config, [sample], RunState.from_config(config))
    assert isinstance(failure, Failure)
    with torch.no_grad():
        best = config.model.network(torch.from_numpy(sample.inputs)).softmax(dim=1)[0]
    wanted = f"the highest is class {int(best.argmax())} {float(best.max()):.2f}"
    assert failure.reason == f"no class reaches the probability of --target above:0.9; {wanted}"
