"""Find what belongs together in two runs: results of an image and method, then classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from camcli.core.errors import UsageError, to_one_line
from camcli.review.result_lines import StoredExplanation, StoredResult
from camcli.review.stored_run import StoredRun

T = TypeVar("T")
ResultPair = tuple[StoredResult, StoredResult]
ExplanationPair = tuple[StoredExplanation | None, StoredExplanation | None]


@dataclass(frozen=True, slots=True)
class FailedResult:
    """A result of one run for an image that failed in the other run, and the reason.

    Of `base` and `new` one is None: that run has no result.
    """

    base: StoredResult | None
    new: StoredResult | None
    reason: str


@dataclass(frozen=True, slots=True)
class RunMatch:
    """The results of two runs, side by side.

    `unmatched_base` and `unmatched_new` are results that the other run neither has nor failed at.
    """

    pairs: tuple[ResultPair, ...]
    failed: tuple[FailedResult, ...]
    unmatched_base: tuple[StoredResult, ...]
    unmatched_new: tuple[StoredResult, ...]
    twice_failed_count: int


def match_runs(base: StoredRun, new: StoredRun) -> RunMatch:
    """Match the results of two runs by image and method.

    Where a run has several results of both, those of the same layers and file belong together, then
    those of the same layers, then those in the same place.
    """
    base_groups, new_groups = _group_results(base), _group_results(new)
    pairs: list[ResultPair] = []
    alone_base: list[StoredResult] = []
    alone_new: list[StoredResult] = []
    for key in dict.fromkeys([*base_groups, *new_groups]):
        found, left, right = pair_by_key(
            base_groups.get(key, []),
            new_groups.get(key, []),
            lambda result: (result.layers, result.path),  # names may repeat in a run
            lambda result: result.layers,
        )
        pairs += found
        alone_base += left
        alone_new += right
    base_reasons = {failure.name: failure.reason for failure in base.failures}
    new_reasons = {failure.name: failure.reason for failure in new.failures}
    failed = [
        *(
            FailedResult(r, None, new_reasons[r.image])
            for r in alone_base
            if r.image in new_reasons
        ),
        *(
            FailedResult(None, r, base_reasons[r.image])
            for r in alone_new
            if r.image in base_reasons
        ),
    ]
    return RunMatch(
        pairs=tuple(pairs),
        failed=tuple(failed),
        unmatched_base=tuple(r for r in alone_base if r.image not in new_reasons),
        unmatched_new=tuple(r for r in alone_new if r.image not in base_reasons),
        twice_failed_count=len(base_reasons.keys() & new_reasons.keys()),
    )


def check_all_matched(match: RunMatch, base: StoredRun, new: StoredRun) -> None:
    """Raise UsageError if one run has results that the other one has not."""
    parts = [
        _describe_unmatched(results, run, other)
        for results, run, other in (
            (match.unmatched_base, base, new),
            (match.unmatched_new, new, base),
        )
        if results
    ]
    if parts:
        advice = "explain the same images with the same methods, or add --common"
        raise UsageError(f"{'; '.join(parts)}; {advice}")


def _describe_unmatched(results: Sequence[StoredResult], run: StoredRun, other: StoredRun) -> str:
    methods = [name for name in run.methods if name not in other.methods]
    folder = to_one_line(run.folder)
    if methods:
        return f"only {folder} has the method {', '.join(map(to_one_line, methods[:5]))}"
    first = results[0]
    name = f"{to_one_line(first.image)[:100]} by {to_one_line(first.method)[:60]}"
    return f"only {folder} has {len(results)} of its {len(run)} results, such as {name}"


def match_explanations(base: StoredResult, new: StoredResult) -> list[ExplanationPair]:
    """Match the classes of two results by the targets that chose them.

    Of one target, equal classes belong together, then those in the same place. If the results have
    no target in common, all their classes are matched like that. A class without a partner has
    None on the other side.
    """
    pairs: dict[tuple[int, int], tuple[StoredExplanation, StoredExplanation]] = {}
    for target in _list_common_targets(base, new) or [None]:
        found, _, _ = pair_by_key(
            _select_target(base, target), _select_target(new, target), find_class_key
        )
        pairs |= {(id(one), id(other)): (one, other) for one, other in found}
    matched = {key for pair in pairs for key in pair}
    return [
        *pairs.values(),
        *((one, None) for one in base.explanations if id(one) not in matched),
        *((None, other) for other in new.explanations if id(other) not in matched),
    ]


def _list_common_targets(base: StoredResult, new: StoredResult) -> list[str | None]:
    new_targets = {target for e in new.explanations for target in e.targets}
    found = dict.fromkeys(target for e in base.explanations for target in e.targets)
    return [target for target in found if target in new_targets]


def find_class_key(explanation: StoredExplanation) -> Hashable:
    """What tells the class of an explanation from others: index, names, direction."""
    return explanation.class_index, explanation.class_label


def _select_target(result: StoredResult, target: str | None) -> list[StoredExplanation]:
    """The explanations that a target chose; None stands for runs that name no targets."""
    return [e for e in result.explanations if target is None or target in e.targets]


def _group_results(run: StoredRun) -> dict[tuple[str, str], list[StoredResult]]:
    groups: defaultdict[tuple[str, str], list[StoredResult]] = defaultdict(list)
    for result in run:
        groups[result.image, result.method].append(result)
    return groups


def pair_by_key(
    base: Sequence[T], new: Sequence[T], *find_keys: Callable[[T], Hashable]
) -> tuple[list[tuple[T, T]], list[T], list[T]]:
    """Pair items of equal keys, then the others in their order; and what is left of each side.

    The first key is tried for all items, then the next one. The pairs are in the order of `base`.
    """
    partners: dict[int, int] = {}
    for find_key in (*find_keys, _take_any):
        waiting: defaultdict[Hashable, list[int]] = defaultdict(list)
        for index in _list_others(new, partners.values()):
            waiting[find_key(new[index])].append(index)
        for index in _list_others(base, partners):
            if same := waiting[find_key(base[index])]:
                partners[index] = same.pop(0)
    pairs = [(base[index], new[partners[index]]) for index in sorted(partners)]
    left = [base[index] for index in _list_others(base, partners)]
    return pairs, left, [new[index] for index in _list_others(new, partners.values())]


def _take_any(_item: object) -> None:
    """The key of all items: then only their order counts."""


def _list_others(items: Sequence[T], taken: Iterable[int]) -> list[int]:
    known = set(taken)
    return [index for index in range(len(items)) if index not in known]
