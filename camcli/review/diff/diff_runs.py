"""Compare two runs of `camcli explain`: what differs in which image, and whether it may."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from camcli.core.errors import UsageError, to_one_line
from camcli.review.diff.diff_limits import DiffLimits
from camcli.review.diff.diff_reasons import (
    REASON_KINDS,
    DiffReason,
    find_reasons,
    format_class,
)
from camcli.review.diff.map_measures import MapMeasures, measure_maps
from camcli.review.diff.run_matching import (
    FailedResult,
    ResultPair,
    RunMatch,
    check_all_matched,
    match_explanations,
    match_runs,
)
from camcli.review.diff.settings_changes import list_settings_changes
from camcli.review.result_lines import MAP_KIND, StoredExplanation, StoredResult
from camcli.review.stored_run import StoredRun


@dataclass(frozen=True, slots=True)
class MapDifference:
    """One class of one image and method in two runs.

    `base` and `new` are the results, and the explanations are their parts of this class. One side
    is None where that run failed at the image, or does not explain the class. `reasons` is empty if
    the image is the same within the limits.
    """

    base: StoredResult | None
    new: StoredResult | None
    base_explanation: StoredExplanation | None
    new_explanation: StoredExplanation | None
    measures: MapMeasures
    reasons: tuple[DiffReason, ...]

    @property
    def result(self) -> StoredResult:
        """The result of the new run, or of the base where the new one has none."""
        result = self.new or self.base
        assert result is not None
        return result

    @property
    def image(self) -> str:
        """The name of the image."""
        return self.result.image

    @property
    def image_key(self) -> tuple[str, str]:
        """What tells the image from others of the run, whose names may be the same."""
        result = self.base or self.result
        return result.image, result.path

    @property
    def method(self) -> str:
        """The name of the method."""
        return self.result.method

    @property
    def is_class_changed(self) -> bool:
        """Whether the predicted class changed."""
        return any(reason.kind == "class" for reason in self.reasons)

    @property
    def is_beyond_limits(self) -> bool:
        """Whether anything but the class differs."""
        return any(reason.kind != "class" for reason in self.reasons)

    @property
    def badness(self) -> tuple[int, float, float]:
        """A key that sorts the worst first: by kind of reason, correlation, change of the score."""
        kinds = [REASON_KINDS.index(reason.kind) for reason in self.reasons]
        correlation = self.measures.pearson
        return (
            min(kinds, default=len(REASON_KINDS)),
            2.0 if correlation is None else correlation,
            -abs(self.measures.score_change or 0.0),
        )


@dataclass(frozen=True)
class RunDifference:
    """Two runs, side by side.

    `maps` are in the order of the base run. `problems` says in plain lines what is damaged, missing
    or left out. `settings_changes` names the settings that the runs do not share.
    """

    base: StoredRun
    new: StoredRun
    limits: DiffLimits
    maps: tuple[MapDifference, ...]
    problems: tuple[str, ...] = ()
    settings_changes: tuple[str, ...] = ()

    @property
    def is_same(self) -> bool:
        """Whether the runs are the same within the limits."""
        return not self.has_too_many_class_changes and not self.has_too_many_differences

    @property
    def has_too_many_class_changes(self) -> bool:
        """Whether the class changed in more images than `class_changes`."""
        return len(self.class_changed_images) > self.limits.class_changes

    @property
    def has_too_many_differences(self) -> bool:
        """Whether more images exceed a limit than the allowance permits."""
        return len(self.differing_images) > self.allowed_count

    @property
    def allowed_count(self) -> int:
        """The number of images that may exceed a limit."""
        return self.limits.allowance.count_images(len(self.images))

    @cached_property
    def images(self) -> tuple[str, ...]:
        """The names of the images that were compared."""
        return _list_names(self.maps)

    @cached_property
    def class_changed_images(self) -> tuple[str, ...]:
        """The names of the images whose predicted class changed."""
        return _list_names(item for item in self.maps if item.is_class_changed)

    @cached_property
    def differing_images(self) -> tuple[str, ...]:
        """The names of the images in which anything but the class differs."""
        return _list_names(item for item in self.maps if item.is_beyond_limits)

    @cached_property
    def worst_first(self) -> tuple[MapDifference, ...]:
        """The maps, the worst first."""
        return tuple(sorted(self.maps, key=lambda item: item.badness))


def _list_names(maps: Iterable[MapDifference]) -> tuple[str, ...]:
    """The name of each image once; two images may have one name."""
    return tuple(image for image, _ in dict.fromkeys(item.image_key for item in maps))


def compare_runs(
    base: StoredRun,
    new: StoredRun,
    limits: DiffLimits | None = None,
    *,
    is_common_only: bool = False,
    report_progress: Callable[[], None] = lambda: None,
) -> RunDifference:
    """Compare two runs image by image.

    With `is_common_only`, results that only one run has are left out. Raises UsageError if the runs
    cannot be compared: other images or methods, or no maps to correlate.
    """
    limits = limits or DiffLimits()
    _check_not_empty(base)
    _check_not_empty(new)
    match = match_runs(base, new)
    if not is_common_only:
        check_all_matched(match, base, new)
    if not match.pairs and not match.failed:
        names = f"{to_one_line(base.folder)} and {to_one_line(new.folder)}"
        raise UsageError(f"{names} have no image and method in common")
    if limits.min_correlation is not None:
        _check_maps_saved(base)
        _check_maps_saved(new)
    maps = [*_list_failed(match.failed)]
    for pair in match.pairs:
        maps += _compare_results(pair, (base.folder, new.folder), limits)
        report_progress()
    if not maps:
        raise UsageError(
            f"{to_one_line(base.folder)} and {to_one_line(new.folder)} explain no class"
        )
    order = {name: number for number, name in enumerate(_list_images(base, new))}
    return RunDifference(
        base=base,
        new=new,
        limits=limits,
        maps=tuple(sorted(maps, key=lambda item: order[item.image])),
        problems=tuple(_describe_problems(base, new, match)),
        settings_changes=list_settings_changes(base, new),
    )


def _check_not_empty(run: StoredRun) -> None:
    if not run.results and not run.failures:
        reason = f" ({run.problems[-1]})" if run.problems else ""
        raise UsageError(
            f"{to_one_line(run.folder)} has no results{reason}; explain images into it"
        )


def _check_maps_saved(run: StoredRun) -> None:
    if run.results and not any(MAP_KIND in e.files for result in run for e in result.explanations):
        raise UsageError(
            f"{to_one_line(run.folder)} has no maps; run camcli explain with --save map, "
            "or compare without them: --min-correlation off"
        )


def _list_images(base: StoredRun, new: StoredRun) -> dict[str, None]:
    return dict.fromkeys([*(r.image for r in base), *(r.image for r in new)])


def _describe_problems(base: StoredRun, new: StoredRun, match: RunMatch) -> Iterator[str]:
    for run in (base, new):
        yield from (f"{to_one_line(run.folder)}: {problem}" for problem in run.problems)
    if match.twice_failed_count:
        count = match.twice_failed_count
        text = (
            "image failed in both runs and is"
            if count == 1
            else "images failed in both runs and are"
        )
        yield f"{count} {text} not compared"
    left_out = len(match.unmatched_base) + len(match.unmatched_new)
    if left_out:
        noun = "result of only one run is" if left_out == 1 else "results of only one run are"
        yield f"{left_out} {noun} left out"


def _list_failed(failed: tuple[FailedResult, ...]) -> Iterator[MapDifference]:
    for item in failed:
        text = f"failed in the {'new' if item.new is None else 'base'} run: {item.reason}"
        yield MapDifference(
            base=item.base,
            new=item.new,
            base_explanation=_find_first(item.base),
            new_explanation=_find_first(item.new),
            measures=MapMeasures(),
            reasons=(DiffReason("failed", to_one_line(text)[:300]),),
        )


def _find_first(result: StoredResult | None) -> StoredExplanation | None:
    return next(iter(result.explanations), None) if result else None


def _compare_results(
    pair: ResultPair, folders: tuple[Path, Path], limits: DiffLimits
) -> Iterator[MapDifference]:
    base, new = pair
    for one, other in match_explanations(base, new):
        if one is None or other is None:
            measures = MapMeasures()
            reasons = [_describe_extra_class(one, other)]
        else:
            measures = measure_maps(base, new, one, other, folders)
            reasons = [*_find_size_reasons(pair), *find_reasons(one, other, measures, limits)]
        yield MapDifference(base, new, one, other, measures, tuple(reasons))


def _describe_extra_class(
    base: StoredExplanation | None, new: StoredExplanation | None
) -> DiffReason:
    run = "base" if new is None else "new"
    explained = base or new
    assert explained is not None
    return DiffReason("class", f"only the {run} run explains {format_class(explained)}")


def _find_size_reasons(pair: ResultPair) -> Iterator[DiffReason]:
    base, new = pair
    if (base.width, base.height) != (new.width, new.height):
        text = (
            f"the image had {base.width} x {base.height} pixels and has {new.width} x {new.height}"
        )
        yield DiffReason("size", text)
