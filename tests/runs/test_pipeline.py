"""Read ahead, compute in batches, write behind: order, failures, memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PHOTOS, small

from camcli.core import concurrency as stream
from camcli.core.concurrency import prefetch_map
from camcli.core.errors import OutputError
from camcli.core.types import Failure, ImageSource, Result
from camcli.engine import targets
from camcli.engine.acceleration import precision
from camcli.engine.explain_batch import explain_batch
from camcli.engine.plan import plan_requests
from camcli.methods.registry import find_method
from camcli.runs import batch as batches
from camcli.runs import pipeline
from camcli.runs.run_config import RunConfig, RunState


def job(batch_size: int = 3, target: str = "predicted") -> RunConfig:
    model = small("test_resnet")
    aim = targets.parse_target(target)(model.labels)
    return RunConfig(
        model, plan_requests(model, [find_method("gradcam")]), aim, batch_size=batch_size
    )


def found(*names: str) -> list[ImageSource | Failure]:
    return [ImageSource(PHOTOS[0].parent / name, name, Path(name).stem) for name in names]


NAMES = [photo.name for photo in PHOTOS]


def run(work: RunConfig, items: list[ImageSource | Failure]) -> list[Result | Failure]:
    return list(pipeline.run_pipeline(work, items, lambda result: result))


def name_of(outcome: Result | Failure) -> str:
    return outcome.name if isinstance(outcome, Failure) else outcome.sample.source.name


def test_outcomes_keep_the_order_of_the_inputs_failures_included() -> None:
    given = [NAMES[0], "missing.jpg", NAMES[1], NAMES[2], "CREDITS.md", NAMES[3]]
    outcomes = run(job(), found(*given))
    assert [name_of(outcome) for outcome in outcomes] == given
    failed = {o.name: o.reason for o in outcomes if isinstance(o, Failure)}
    assert failed == {
        "missing.jpg": "No such file or directory",
        "CREDITS.md": "not an image in a format that camcli reads",
    }


def refused_by_the_cpu() -> str:
    with pytest.raises(RuntimeError) as error:
        torch.empty(10**15)
    return str(error.value)


@pytest.mark.parametrize("message", ["CUDA out of memory", refused_by_the_cpu()])
def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    tried: list[int] = []

    def cramped(model: Any, inputs: torch.Tensor, *rest: Any) -> Any:
        tried.append(len(inputs))
        if len(inputs) > 1:
            kind = torch.OutOfMemoryError if "CUDA" in message else RuntimeError
            raise kind(message)
        return explain_batch(model, inputs, *rest)

    whole = run(job(4), found(*NAMES))
    monkeypatch.setattr(batches, "explain_batch", cramped)
    halved = run(job(4), found(*NAMES))
    assert tried == [4, 2, 1, 1, 1, 1]  # what was found out is remembered
    for one, other in zip(whole, halved, strict=True):
        assert isinstance(one, Result)
        assert isinstance(other, Result)
        assert one.explanations[0].class_index == other.explanations[0].class_index
        assert other.explanations[0].score == pytest.approx(one.explanations[0].score, abs=1e-5)


def test_an_image_that_does_not_fit_alone_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(batches, "explain_batch", full)
    outcomes = run(job(4), found(*NAMES))
    assert [name_of(outcome) for outcome in outcomes] == NAMES
    assert all("not enough memory" in o.reason for o in outcomes if isinstance(o, Failure))


def test_other_errors_of_the_model_are_not_taken_for_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(batches, "explain_batch", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        run(job(), found(*NAMES))


def test_a_file_that_cannot_be_written_fails_its_image_only() -> None:
    def finish(result: Result) -> Result:
        if result.sample.source.name == NAMES[1]:
            raise OutputError("disk full")
        return result

    outcomes = list(pipeline.run_pipeline(job(), found(*NAMES), finish))
    assert [type(outcome) for outcome in outcomes] == [Result, Failure, Result, Result]


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep"), SystemError("tile")])
@pytest.mark.parametrize("where", ["preprocess_image", "find_boxes", "finish"])
def test_what_is_too_large_to_resize_or_draw_fails_its_image_only(
    monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
) -> None:
    failing = iter([False, True, False, False])
    own = getattr(pipeline, where, None)

    def fail_second(*arguments: Any) -> Any:
        if next(failing):
            raise error
        return own(*arguments) if own else arguments[0]

    if own:
        monkeypatch.setattr(pipeline, where, fail_second)
    finish = (lambda result: result) if own else fail_second
    work = replace(job(), workers=1)
    outcomes = list(pipeline.run_pipeline(work, found(*NAMES), finish))
    assert [type(outcome) for outcome in outcomes] == [Result, Failure, Result, Result]
    said = str(error) or "not enough memory for an image of this size"
    assert isinstance(outcomes[1], Failure)
    assert outcomes[1].reason == (said if where == "preprocess_image" else f"gradcam: {said}")


def test_a_bug_is_not_taken_for_an_odd_image() -> None:
    def finish(_result: Result) -> Result:
        raise AttributeError("no such field")

    with pytest.raises(AttributeError):
        list(pipeline.run_pipeline(job(), found(*NAMES), finish))


def test_numpy_without_memory_halves_the_batch_as_torch_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []

    def need_two_at_most(model: Any, inputs: torch.Tensor, *rest: Any) -> Any:
        sizes.append(len(inputs))
        if len(inputs) > 2:
            raise MemoryError
        return explain_batch(model, inputs, *rest)

    monkeypatch.setattr(batches, "explain_batch", need_two_at_most)
    outcomes = run(job(batch_size=4), found(*NAMES))
    assert all(isinstance(outcome, Result) for outcome in outcomes)
    assert sizes == [4, 2, 2]


def test_ablations_are_counted_over_the_batch_and_not_from_zero_for_each_image() -> None:
    model = small("test_resnet")
    calls: list[tuple[int, int]] = []
    work = replace(
        job(batch_size=4),
        requests=plan_requests(model, [find_method("ablationcam")]),
        report_progress=lambda done, total: calls.append((done, total)),
    )
    run(work, found(*NAMES))
    ablations = [done for done, total in calls if total > len(NAMES)]
    assert ablations == sorted(set(ablations))
    assert ablations[-1] == max(total for _, total in calls)


def test_each_image_has_the_class_that_its_own_rule_gives(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    wanted = dict(zip(NAMES, ("3", "1", "4", "1"), strict=True))
    file.write_text("image,class\n" + "".join(f"{k},{v}\n" for k, v in wanted.items()))
    outcomes = run(job(2, f"@{file}"), found(*NAMES))
    got = {name_of(o): o.explanations[0].class_index for o in outcomes if isinstance(o, Result)}
    assert got == {name: int(index) for name, index in wanted.items()}


def test_ahead_is_bounded_and_surfaces_errors_in_order() -> None:
    started: list[int] = []
    gate = threading.Event()

    def work(n: int) -> int:
        started.append(n)
        gate.wait(5)
        if n == 5:
            raise ValueError("five")
        return n

    def items() -> Iterator[int]:
        yield from range(100)

    with ThreadPoolExecutor(2) as pool:
        results = prefetch_map(pool, work, items(), depth=3)
        gate.set()
        assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(ValueError, match="five"):
            next(results)
    assert max(started) < 12  # not one of the hundred more than it may read ahead


def test_altered_inputs_come_in_fewer_when_one_image_alone_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[int] = []

    def cramped(model: Any, inputs: torch.Tensor, requests: Any, choose: Any, how: Any) -> Any:
        tried.append(how.chunk_size)
        if how.chunk_size > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return explain_batch(model, inputs, requests, choose, how)

    monkeypatch.setattr(batches, "explain_batch", cramped)
    state = RunState.from_config(job(8))
    found_ = list(pipeline.run_pipeline(job(8), found(NAMES[0]), lambda result: result, state))
    assert isinstance(found_[0], Result)
    assert tried == [8, 4, 2]
    assert state.notes[-1] == "out of memory: continuing with 2 images at a time"


@pytest.mark.parametrize(
    ("gain", "noise", "taken"), [(2.0, 0.0, "bf16"), (1.0, 0.0, "fp32"), (2.0, 0.5, "fp32")]
)
def test_bf16_is_taken_where_it_is_faster_and_maps_are_the_same(
    monkeypatch: pytest.MonkeyPatch, gain: float, noise: float, taken: str
) -> None:
    work = replace(job(4), precision="auto")
    calls: list[int] = []

    def noisy(*given: Any) -> Any:
        calls.append(len(calls))
        rows = explain_batch(*given)
        values = rows[0][0].fused.values
        values += noise * (len(calls) == 2) * torch.randn(values.shape)
        return rows

    monkeypatch.setattr(precision, "_measure_speedup", lambda *_: gain)
    monkeypatch.setattr(batches, "explain_batch", noisy)
    state = RunState.from_config(work)
    assert all(
        isinstance(o, Result)
        for o in pipeline.run_pipeline(work, found(*NAMES), lambda r: r, state)
    )
    assert state.precision == taken
    assert state.notes[0].startswith(f"{taken}: ")


def test_each_second_counts_once_for_what_is_innermost(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(100))
    monkeypatch.setattr("camcli.core.concurrency.time.monotonic", lambda: next(ticks))
    clock = stream.PhaseTimer()

    def items() -> Iterator[int]:
        for n in range(3):
            with clock.measure_phase("inner"):
                yield_ = n
            yield yield_

    assert list(clock.iter_timed("outer", items())) == [0, 1, 2]
    assert clock.seconds["inner"] == 3
    assert clock.seconds["outer"] == 7
