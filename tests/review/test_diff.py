"""Two runs side by side: what differs, what is allowed, and files that cannot be trusted."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import pearsonr, spearmanr
from stored_runs import result_line, write_run

from camcli.core.correlation import compute_pearson, compute_spearman
from camcli.core.errors import UsageError, to_one_line
from camcli.core.types import Box
from camcli.review.diff import settings_changes
from camcli.review.diff.box_overlap import compute_boxes_iou
from camcli.review.diff.diff_files import encode_junit, iter_diff_lines
from camcli.review.diff.diff_limits import Allowance, DiffLimits, parse_allowance, parse_limit
from camcli.review.diff.diff_runs import RunDifference, compare_runs
from camcli.review.diff.diff_statistics import compute_low_values, format_statistics, format_verdict
from camcli.review.diff.diff_summary import (
    SUMMARY_BYTES,
    append_summary,
    encode_summary,
    escape_markdown,
)
from camcli.review.map_correlation import align_maps
from camcli.review.stored_run import open_run

SCHEMA = json.loads((files("camcli.io.schemas") / "diff.schema.json").read_text())
LEVELS = np.arange(0, 98, 2, dtype=np.uint8).reshape(7, 7)
HOSTILE_NAMES = (
    "a|b.jpg",
    "<script>alert(1)</script>.jpg",
    "`tick`.jpg",
    "two\nlines.jpg",
    "\x00\x1b[31m\ufffe\uffff.jpg",
    "\udcff surrogate.jpg",
    "\u202egpj.exe",
    "[link](http://x) ![p](y) www.x.com @name **b** &lt;.jpg",
    "]]>.jpg",
)


def save_map(folder: Path, levels: NDArray[np.uint8] = LEVELS, name: str = "a.map.png") -> None:
    folder.mkdir(exist_ok=True)
    Image.fromarray(levels).save(folder / name)


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., RunDifference]:
    """Compares two runs, each a list of lines; without other maps, each has `a.map.png`."""

    def compare_lines(
        base: list[Any], new: list[Any], limits: DiffLimits | None = None, **options: Any
    ) -> RunDifference:
        for name, lines in (("base", base), ("new", new)):
            if not (tmp_path / name / "a.map.png").exists():
                save_map(tmp_path / name)
            write_run(tmp_path / name, *lines)
        runs = open_run(tmp_path / "base"), open_run(tmp_path / "new")
        return compare_runs(*runs, limits, **options)

    return compare_lines


Compare = Callable[..., RunDifference]


def explained(**fields: Any) -> dict[str, Any]:
    return result_line(explanation=fields)


def texts(difference: RunDifference) -> list[str]:
    return [reason.text for item in difference.maps for reason in item.reasons]


def test_equal_runs_are_the_same(compare: Compare) -> None:
    found = compare([result_line()], [result_line()])
    assert found.is_same
    (item,) = found.maps
    assert (item.measures.pearson, item.measures.spearman, item.measures.iou) == (1, 1, 1)
    assert item.measures.score_change == 0
    assert item.base
    assert item.new
    assert item.base.image == item.new.image == item.image == "a.jpg"
    assert not found.problems
    assert format_verdict(found) == "the same: 1 image"


CHANGES: dict[str, tuple[dict[str, Any], str, str]] = {
    "class": ({"class_index": 2, "class_name": "lynx"}, "class", "tabby (281) became lynx (2)"),
    "index": ({"class_index": 2}, "class", "tabby (281) became tabby (2)"),
    "predicted": ({"predicted": True}, "class", "tabby (281) is now the predicted class"),
    "status": ({"map_status": "constant"}, "status", "the map was ok and is constant"),
    "score": ({"score": 0.5501}, "score", "score 0.5 became 0.55 (+0.050)"),
    "no score": ({"score": None}, "score", "score 0.5 became unknown"),
    "kind": ({"score_kind": "value"}, "score", "was a probability and is a value"),
    "no map": ({"files": {}}, "map", "the new run has no map of it"),
    "rivals": (
        {"against": [{"class_index": 1, "class_name": "lynx"}]},
        "class",
        "tabby (281) became tabby vs lynx (281)",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_each_change_alone_is_a_reason(case: str, compare: Compare) -> None:
    fields, kind, text = CHANGES[case]
    other = result_line(image="b.jpg")  # its map is there, so that the runs can be compared
    found = compare([explained(), other], [explained(**fields), other])
    (reason,) = (reason for item in found.maps for reason in item.reasons)
    assert reason.kind == kind
    assert text in reason.text
    assert not found.is_same


def test_a_change_at_the_limit_is_allowed(compare: Compare) -> None:
    assert compare([explained(score=0.5)], [explained(score=0.55)]).is_same
    assert compare([explained(score=0.1)], [explained(score=0.05)]).is_same


def test_huge_scores_do_not_overflow(compare: Compare) -> None:
    sides = [[explained(score=sign * 1.7e308, score_kind="value")] for sign in (-1, 1)]
    found = compare(*sides)
    assert not found.is_same
    json.dumps([*iter_diff_lines(found)], allow_nan=False)


def test_a_lower_correlation_is_a_reason(compare: Compare, tmp_path: Path) -> None:
    save_map(tmp_path / "new", LEVELS.T.copy())
    lines = [result_line()]
    found = compare(lines, lines)
    expected = float(pearsonr(LEVELS.ravel(), LEVELS.T.ravel()).statistic)
    assert found.maps[0].measures.pearson == pytest.approx(expected)
    assert texts(found) == [f"correlation {expected:.3f} is below 0.98"]
    assert compare(lines, lines, DiffLimits(min_correlation=expected - 1e-6)).is_same
    assert not compare(lines, lines, DiffLimits(min_correlation=expected + 1e-6)).is_same
    assert compare(lines, lines, DiffLimits(min_correlation=None)).is_same


def test_boxes_count_only_with_a_limit(compare: Compare) -> None:
    box = {"x1": 1, "y1": 2, "x2": 30, "y2": 11, "score": 0.5}
    base, new = [explained()], [explained(boxes=[box])]
    assert compare(base, new).is_same
    found = compare(base, new, DiffLimits(min_iou=0.6))
    assert texts(found) == ["box IoU 0.500 is below 0.6"]
    assert compare(base, new, DiffLimits(min_iou=0.5)).is_same
    gone = compare(base, [explained(boxes=[])], DiffLimits(min_iou=0.1))
    assert texts(gone) == ["box IoU 0.000 is below 0.1"]


def test_class_changes_have_a_limit_of_their_own(compare: Compare) -> None:
    base = [result_line(image=name) for name in "abc"]
    changed = explained(class_index=2, class_name="lynx", score=0.1) | {"image": "a"}
    new = [changed, result_line(image="b"), explained(score=0.9) | {"image": "c"}]
    both = DiffLimits(class_changes=1, allowance=Allowance(1))
    assert compare(base, new, both).is_same
    assert not compare(base, new, replace(both, class_changes=0)).is_same
    found = compare(base, new, replace(both, allowance=Allowance()))
    assert not found.is_same
    assert (found.class_changed_images, found.differing_images) == (("a",), ("c",))
    assert "class changed in 1 (allowed: 1), beyond a limit: 1 (allowed: 0)" in format_verdict(
        found
    )


@pytest.mark.parametrize(("count", "allowed"), [(99, 0), (100, 1), (199, 1), (1000, 10)])
def test_a_share_is_rounded_down(count: int, allowed: int) -> None:
    assert parse_allowance("1%").count_images(count) == allowed


@pytest.mark.parametrize(
    "text", ["101%", "-1", "1.5", "%", "1 %", "", "1e9", "x", "1%%", "\uff11%"]
)
def test_other_allowances_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="write a number of images"):
        parse_allowance(text)


@pytest.mark.parametrize("text", ["nan", "inf", "1.1", "-2", "", "0,9", "1e-3", "on"])
def test_other_limits_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="from -1 to 1, or off"):
        parse_limit("--min-correlation", text, -1, 1)


def test_limits_are_numbers_or_off() -> None:
    assert parse_limit("--min-iou", "off", 0, 1) is None
    assert [parse_limit("-x", text, -1, 1) for text in (".5", "1", "-1.0")] == [0.5, 1, -1]


# Matching


def test_images_or_methods_of_one_run_cannot_be_compared(compare: Compare) -> None:
    both, extra = result_line(), result_line(image="extra.jpg")
    with pytest.raises(UsageError, match=r"only .*base has 1 of its 2 results, such as extra\.jpg"):
        compare([both, extra], [both])
    with pytest.raises(UsageError, match=r"only .*new has the method cam; .*add --common"):
        compare([both], [both, result_line(method="cam")])
    with pytest.raises(UsageError, match="no image and method in common"):
        compare([both], [extra], is_common_only=True)
    found = compare([both, extra], [both], is_common_only=True)
    assert found.images == ("a.jpg",)
    assert found.problems == ("1 result of only one run is left out",)


def test_runs_without_maps_or_results_cannot_be_compared(compare: Compare) -> None:
    bare = [explained(files={})]
    with pytest.raises(UsageError, match=r"base has no maps; .* --save map"):
        compare(bare, [result_line()])
    with pytest.raises(UsageError, match="new has no maps"):
        compare([result_line()], bare)
    assert compare(bare, bare, DiffLimits(min_correlation=None)).is_same
    with pytest.raises(UsageError, match="new has no results"):
        compare([result_line()], ["{", "[]"])
    with pytest.raises(UsageError, match="explain no class"):
        compare([result_line(explanations=[])], [result_line(explanations=[])], DiffLimits(0, None))


def test_an_image_that_fails_in_one_run_differs(compare: Compare) -> None:
    failed = {"image": "b.jpg", "path": "b.jpg", "status": "failed", "error": "trun\ncated"}
    both = [result_line(), result_line(image="b.jpg")]
    found = compare(both, [both[0], failed])
    assert texts(found) == ["failed in the new run: trun\\ncated"]
    assert texts(compare([both[0], failed], both)) == ["failed in the base run: trun\\ncated"]
    twice = compare([both[0], failed], [both[0], failed])
    assert twice.is_same
    assert twice.problems == ("1 image failed in both runs and is not compared",)
    assert not compare([both[0]], [failed | {"image": "a.jpg"}]).is_same


def test_layers_of_one_method_are_matched(compare: Compare) -> None:
    rows = [explained(score=s) | {"layers": [name]} for s, name in ((0.1, "x"), (0.9, "y"))]
    assert compare(rows, rows[::-1]).is_same
    renamed = [row | {"layers": [f"other.{row['layers'][0]}"]} for row in rows]
    assert compare(rows, renamed).is_same
    assert not compare(rows, renamed[::-1]).is_same


def test_images_of_one_name_are_two_images(compare: Compare) -> None:
    base = [result_line(path=f"{folder}/a.jpg") for folder in "xy"]
    new = [line | explained(score=0.9) | {"path": line["path"]} for line in base]
    found = compare(base, new, DiffLimits(allowance=Allowance(1)))
    assert not found.is_same
    assert found.differing_images == found.images == ("a.jpg", "a.jpg")
    assert len(ElementTree.fromstring(encode_junit(found))[0]) == 2
    one = compare(base, [base[1]], is_common_only=True)
    assert [item.base and item.base.path for item in one.maps] == ["y/a.jpg"]
    elsewhere = [line | {"path": f"/other/{line['path']}"} for line in base]
    assert compare(base, elsewhere).is_same


def classes(*items: tuple[int, list[str]]) -> dict[str, Any]:
    line = result_line()
    (first,) = line["explanations"]
    line["explanations"] = [first | {"class_index": i, "targets": t} for i, t in items]
    return line


MATCHED: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "split targets": (
        classes((1, ["predicted", "folder"])),
        classes((2, ["predicted"]), (1, ["folder"])),
        1,
    ),
    "order of top": (
        classes((1, ["top:2"]), (2, ["top:2"])),
        classes((2, ["top:2"]), (1, ["top:2"])),
        0,
    ),
    "one of top": (
        classes((1, ["top:2"]), (2, ["top:2"])),
        classes((1, ["top:2"]), (3, ["top:2"])),
        1,
    ),
    "one more": (classes((1, ["above:0.5"])), classes((1, ["above:0.5"]), (2, ["above:0.5"])), 1),
    "one less": (classes((1, ["above:0.5"]), (2, ["above:0.5"])), classes((1, ["above:0.5"])), 1),
    "other list": (classes((1, ["@a.csv"])), classes((1, ["@b.csv"])), 0),
    "one target more": (classes((1, ["predicted"])), classes((1, ["predicted"]), (2, ["5"])), 1),
}


@pytest.mark.parametrize("case", MATCHED)
def test_classes_are_matched_by_target(case: str, compare: Compare) -> None:
    base, new, changes = MATCHED[case]
    found = compare([base], [new])
    assert sum(item.is_class_changed for item in found.maps) == changes
    assert not found.differing_images
    for line in iter_diff_lines(found):
        jsonschema.validate(line, SCHEMA)


def test_damaged_lines_and_unfinished_runs_are_problems(compare: Compare, tmp_path: Path) -> None:
    compare([result_line()], [result_line()])
    write_run(tmp_path / "new", "{", result_line(), state="running")
    found = compare_runs(open_run(tmp_path / "base"), open_run(tmp_path / "new"))
    assert found.is_same
    assert [problem.partition("new: ")[2] for problem in found.problems] == [
        "the run is not complete: its state is running",
        "1 line is damaged and left out (line 1 of results.jsonl)",
    ]


def test_settings_that_differ_are_named(compare: Compare, tmp_path: Path) -> None:
    compare([result_line()], [result_line()])
    base: dict[str, Any] = {
        "state": "done",
        "started": "then",
        "model": {"transform": {"interpolation": "bicubic"}},
        "settings": {"save": "map", "fit": "crop"},
    }
    new = base | {"started": "now", "model": {"transform": {"interpolation": "bi\nlinear"}}}
    for name, content in (("base", base), ("new", new | {"settings": {"fit": "crop"}})):
        (tmp_path / name / "run.json").write_text(json.dumps(content))
    found = compare_runs(open_run(tmp_path / "base"), open_run(tmp_path / "new"))
    assert found.settings_changes == ("model.transform.interpolation: bicubic, bi\\nlinear",)


def test_settings_too_deep_to_show_are_no_crash(
    compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_value: Any) -> str:
        raise RecursionError

    compare([result_line()], [result_line()])
    for name in ("base", "new"):
        (tmp_path / name / "run.json").write_text(f'{{"state": "done", "device": "{name}"}}')
    runs = open_run(tmp_path / "base"), open_run(tmp_path / "new")
    assert compare_runs(*runs).settings_changes == ("device: base, new",)
    monkeypatch.setattr(settings_changes, "_format", fail)
    assert compare_runs(*runs).settings_changes == ()


# Maps


def make_png(mode: str, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, format="PNG")
    return buffer.getvalue()


def make_bomb(side: int) -> bytes:
    """A PNG whose header promises side x side grey pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def make_text_bomb() -> bytes:
    whole = make_png("L", (7, 7))
    data = b"k\0\0" + zlib.compress(bytes(2**26))
    text = struct.pack(">I", len(data)) + b"zTXt" + data
    return whole[:33] + text + struct.pack(">I", zlib.crc32(b"zTXt" + data)) + whole[33:]


DAMAGED = {
    "empty": b"",
    "no image": b"not a png",
    "truncated": make_png("L", (64, 64))[:60],
    "RGB": make_png("RGB", (7, 7)),
    "palette": make_png("P", (7, 7)),
    "one bit": make_png("1", (7, 7)),
    "huge": make_bomb(5000),
    "decompression bomb": make_bomb(60_000),
    "text bomb": make_text_bomb(),
    "other format": b"GIF89a" + bytes(50),
}


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.parametrize("side", ["base", "new"])
def test_a_damaged_map_is_a_reason(case: str, side: str, compare: Compare, tmp_path: Path) -> None:
    compare([result_line()], [result_line()])
    (tmp_path / side / "a.map.png").write_bytes(DAMAGED[case])
    found = compare([result_line()], [result_line()])
    (text,) = texts(found)
    assert text.startswith(f"cannot read the map of the {side} run: ")
    assert "\n" not in text
    assert found.maps[0].measures.pearson is None


def test_a_map_that_is_no_file_is_a_reason(compare: Compare, tmp_path: Path) -> None:
    base, new = [result_line()], [explained(files={"map": "b.map.png"})]
    assert "cannot read the map of the new run" in texts(compare(base, new))[0]
    (tmp_path / "new" / "b.map.png").mkdir()
    assert "not a regular file" in texts(compare(base, new))[0]


def test_maps_of_status_not_ok_are_not_compared(compare: Compare, tmp_path: Path) -> None:
    save_map(tmp_path / "new", LEVELS.T.copy())
    lines = [explained(map_status="zero_gradient")]
    found = compare(lines, lines)
    assert found.is_same
    assert found.maps[0].measures.pearson is None


def test_constant_maps(compare: Compare, tmp_path: Path) -> None:
    lines = [result_line()]
    save_map(tmp_path / "new", np.full((7, 7), 9, np.uint8))
    assert texts(compare(lines, lines)) == ["only the map of the new run is constant"]
    save_map(tmp_path / "base", np.full((7, 7), 200, np.uint8))
    found = compare(lines, lines)
    assert found.is_same  # the level of a constant map says nothing
    assert found.maps[0].measures.pearson is None
    assert "correlation" not in format_statistics(found)


def test_an_image_of_another_size_differs(compare: Compare) -> None:
    found = compare([result_line()], [result_line(width=41)])
    assert texts(found) == ["the image had 40 x 20 pixels and has 41 x 20"]


def test_views_without_a_common_part_are_a_reason(compare: Compare) -> None:
    view = {"left": 0, "top": 0, "right": 10, "bottom": 10}
    lines = [result_line(view=view), result_line(view=view | {"left": 20, "right": 40})]
    (text,) = texts(compare(lines[:1], lines[1:]))
    assert text == "the two maps cover different parts of the image"


def slow_pearson(a: list[float], b: list[float]) -> float:
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    top = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    squares = [sum((x - m) ** 2 for x in s) for s, m in ((a, mean_a), (b, mean_b))]
    return float(top / (squares[0] * squares[1]) ** 0.5)


def slow_rank(values: list[float]) -> list[float]:
    return [sum(o < v for o in values) + (sum(o == v for o in values) + 1) / 2 for v in values]


levels = st.lists(st.integers(0, 255), min_size=12, max_size=12)


@given(levels, levels)
def test_correlations_have_a_slow_twin(one: list[float], other: list[float]) -> None:
    a, b = (np.array(side, np.float64).reshape(3, 4) for side in (one, other))
    found = compute_pearson(a, b), compute_spearman(a, b)
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert found == (None, None)
        return
    expected = slow_pearson(one, other), slow_pearson(slow_rank(one), slow_rank(other))
    assert found == pytest.approx(expected, abs=1e-9)
    peers = pearsonr(one, other).statistic, spearmanr(one, other).statistic
    assert found == pytest.approx(peers, abs=1e-9)


def test_a_smaller_map_is_resized_bilinearly_to_the_larger_one() -> None:
    small = Image.fromarray(np.array([[0, 100], [200, 40]], np.uint8))
    large = Image.fromarray(np.zeros((4, 4), np.uint8))
    view = (0.0, 0.0, 8.0, 8.0)
    one, other = align_maps(small, large, view, view)
    assert one.shape == other.shape == (4, 4)
    weights = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    np.testing.assert_allclose(one, weights @ np.array([[0, 100], [200, 40]]) @ weights.T)


def test_maps_of_other_rectangles_are_compared_where_both_are() -> None:
    rows, columns = np.mgrid[0:16, 0:16].astype(np.float64)
    whole = Image.fromarray((rows * 3 + columns * 12).astype(np.uint8))
    part = whole.crop((4, 2, 12, 14))
    one, other = align_maps(whole, part, (0, 0, 32, 32), (8, 4, 24, 28))
    assert one.shape == other.shape == (16, 16)
    assert np.abs(one - other).max() < 8  # the cut map has no neighbours beyond its edge
    correlation = compute_pearson(one, other)
    assert correlation is not None
    assert correlation > 0.999


# Boxes


boxes = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h, 0.5),
    st.integers(0, 12),
    st.integers(0, 12),
    st.integers(1, 8),
    st.integers(1, 8),
)


@given(st.lists(boxes, max_size=4), st.lists(boxes, max_size=4))
def test_the_overlap_of_boxes_counts_pixels(base: list[Box], new: list[Box]) -> None:
    def cover(chosen: list[Box]) -> set[tuple[int, int]]:
        return {(x, y) for b in chosen for x in range(b.x1, b.x2) for y in range(b.y1, b.y2)}

    one, other = cover(base), cover(new)
    expected = len(one & other) / len(one | other) if one | other else None
    assert compute_boxes_iou(base, new) == (
        expected if expected is None else pytest.approx(expected)
    )


def test_the_statistics_are_those_of_numpy() -> None:
    values = list(np.random.default_rng(0).random(57))
    found = compute_low_values([*values, None])
    assert found
    shares = (found.median, found.percentile_1, found.minimum)
    assert shares == pytest.approx(tuple(np.quantile(values, [0.5, 0.01, 0])))
    assert compute_low_values([None]) is None


# Files


@pytest.fixture
def hostile(compare: Compare) -> RunDifference:
    base = [result_line(image=name) for name in HOSTILE_NAMES]
    new = [explained(score=0.9, class_name="tabby") | {"image": name} for name in HOSTILE_NAMES]
    return compare(base, new)


def test_lines_fit_the_schema(hostile: RunDifference) -> None:
    lines = [json.loads(json.dumps(line)) for line in iter_diff_lines(hostile)]
    assert [line["image"] for line in lines] == list(HOSTILE_NAMES)
    for line in lines:
        jsonschema.validate(line, SCHEMA)


def test_the_schema_refuses_other_lines(hostile: RunDifference) -> None:
    line = next(iter_diff_lines(hostile))
    for broken in (
        line | {"reasons": []},
        line | {"status": "same"},
        line | {"pearson": 2},
        line | {"new": {}},
        line | {"more": 1},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, SCHEMA)


def test_junit_has_a_case_for_each_image_whatever_its_name(hostile: RunDifference) -> None:
    root = ElementTree.fromstring(encode_junit(hostile))
    (suite,) = root
    count = str(len(HOSTILE_NAMES))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == (count, count, "0")
    names = [case.get("name") for case in suite]
    assert names[:3] == list(HOSTILE_NAMES[:3])
    assert names[3:5] == ["two\\nlines.jpg", "\\x00\\x1b[31m\\ufffe\\uffff.jpg"]
    assert len({*names}) == len(HOSTILE_NAMES)
    (failure,) = suite[0]
    assert (failure.tag, failure.get("message")) == (
        "failure",
        "gradcam: score 0.5 became 0.9 (+0.400)",
    )


def test_junit_has_no_failure_where_the_run_may_differ(compare: Compare) -> None:
    base = [result_line(image=name) for name in "ab"]
    new = [explained(score=0.9) | {"image": "a"}, base[1]]
    allowed = compare(base, new, DiffLimits(allowance=Allowance(1)))
    (suite,) = ElementTree.fromstring(encode_junit(allowed))
    assert suite.get("failures") == "0"
    assert [[part.tag for part in case] for case in suite] == [["system-out"], []]


def test_several_methods_of_an_image_are_one_case(compare: Compare) -> None:
    base = [result_line(), result_line(method="cam")]
    new = [explained(score=0.9), explained(score=0.1) | {"method": "cam"}]
    (suite,) = ElementTree.fromstring(encode_junit(compare(base, new)))
    assert suite.get("tests") == "1"
    assert suite.findtext("testcase/failure", "").splitlines() == [
        "gradcam: score 0.5 became 0.9 (+0.400)",
        "cam: score 0.5 became 0.1 (-0.400)",
    ]


def test_markdown_shows_hostile_names_as_text(hostile: RunDifference) -> None:
    lines = encode_summary(hostile, SUMMARY_BYTES).decode().splitlines()
    rows = [line for line in lines if line.startswith("| <code>")]
    assert len(rows) == len(HOSTILE_NAMES)
    for row in rows:
        name = row.removeprefix("| <code>").partition("</code>")[0]
        assert not set(name) & set("|<>`*_[]@:!")
        assert row.count("|") == 7
        assert "www." not in name
        assert name.isprintable()


def test_a_reader_of_markdown_finds_the_names(hostile: RunDifference) -> None:
    """markdown-it-py comes with Rich."""
    reader = MarkdownIt("commonmark").enable("table")
    page = reader.render(encode_summary(hostile, SUMMARY_BYTES).decode())
    (body,) = ElementTree.fromstring(f"<page>{page.replace('<br>', ' ')}</page>").iter("tbody")
    names = ["".join(row[0].itertext()) for row in body]
    assert names == [to_one_line(name) for name in HOSTILE_NAMES]
    assert {element.tag for element in body.iter()} == {"tbody", "tr", "td", "code"}


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_escapes_are_undone_by_html(name: str) -> None:
    assert unescape(escape_markdown(name)) == to_one_line(name)


def test_long_names_are_cut(compare: Compare) -> None:
    name = "x" * 100_000 + ".jpg"
    found = compare([result_line(image=name)], [explained(score=0.9) | {"image": name}])
    assert len(encode_summary(found, SUMMARY_BYTES)) < 2000
    assert len(encode_junit(found)) < 2000


def find_smallest_room(difference: RunDifference) -> int:
    return next(room for room in range(2000) if encode_summary(difference, room))


def test_a_summary_never_exceeds_its_room(hostile: RunDifference) -> None:
    whole = encode_summary(hostile, SUMMARY_BYTES)
    assert b"left out" not in whole
    assert encode_summary(hostile, len(whole)) == whole
    for room in range(find_smallest_room(hostile), len(whole)):
        cut = encode_summary(hostile, room)
        assert 0 < len(cut) <= room
        row_count = cut.count(b"| <code>")
        assert f"{len(HOSTILE_NAMES) - row_count} more rows are left out".encode() in cut
        cut.decode()


@pytest.mark.parametrize("free", [0, 100, 1500, 2**19])
def test_a_summary_stays_below_the_limit_of_the_file(
    free: int, hostile: RunDifference, tmp_path: Path
) -> None:
    path = tmp_path / "summary.md"
    before = b"x" * (SUMMARY_BYTES - free)
    path.write_bytes(before)
    written = append_summary(hostile, path)
    content = path.read_bytes()
    assert content.startswith(before)
    assert len(content) <= SUMMARY_BYTES < 1024 * 1000
    assert written == (len(content) > len(before)) == (free > 1000)
    assert not written or content[len(before) :].startswith(b"\n\n### camcli diff: differs")


def test_summaries_follow_each_other(hostile: RunDifference, tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    assert append_summary(hostile, path)
    assert append_summary(hostile, path)
    assert path.read_bytes().count(b"\n### ") == 1
    assert path.read_bytes().startswith(b"### camcli diff")
