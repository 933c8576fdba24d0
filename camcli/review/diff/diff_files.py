"""Write what differs between two runs: JSON lines, and JUnit's XML for CI systems."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from camcli.core.errors import to_one_line
from camcli.io.files import write_file
from camcli.io.jsonl import to_json_line
from camcli.review.diff.diff_runs import MapDifference, RunDifference
from camcli.review.result_lines import MAP_KIND, StoredExplanation, StoredResult

DIFF_FILE = "diff.jsonl"
DIFF_SCHEMA_VERSION = 1
DIGITS = 6
MAX_NAME_CHARACTERS = 500  # of an image in JUnit's XML


def write_diff_lines(difference: RunDifference, folder: Path) -> None:
    """Write diff.jsonl. Raises OutputError."""
    lines = (f"{to_json_line(line)}\n" for line in iter_diff_lines(difference))
    write_file(folder / DIFF_FILE, "".join(lines).encode())


def iter_diff_lines(difference: RunDifference) -> Iterator[dict[str, Any]]:
    """The lines of diff.jsonl, as `diff.schema.json` describes them."""
    for item in difference.maps:
        measures = item.measures
        yield {
            "schema_version": DIFF_SCHEMA_VERSION,
            "image": item.image,
            "method": item.method,
            "layers": list(item.result.layers),
            "targets": _list_targets(item),
            "status": "differs" if item.reasons else "same",
            "reasons": [{"kind": reason.kind, "text": reason.text} for reason in item.reasons],
            "score_change": _round(measures.score_change),
            "pearson": _round(measures.pearson),
            "spearman": _round(measures.spearman),
            "box_iou": _round(measures.iou),
            "base": _side_to_json(item.base, item.base_explanation),
            "new": _side_to_json(item.new, item.new_explanation),
        }


def write_junit_file(difference: RunDifference, path: Path) -> None:
    """Write a report in the format of JUnit: a test case for each image. Raises OutputError."""
    write_file(path, encode_junit(difference))


def encode_junit(difference: RunDifference) -> bytes:
    """The report in the format of JUnit, as XML.

    An image that differs is a failure, unless the run's limits allow so many such images. Names
    have escapes in place of characters that XML cannot hold.
    """
    by_image: defaultdict[tuple[str, str], list[MapDifference]] = defaultdict(list)
    for item in difference.maps:
        by_image[item.image_key].append(item)
    suite = ElementTree.Element("testsuite", name="camcli diff", tests=str(len(by_image)))
    failure_count = sum(_add_case(suite, difference, items) for items in by_image.values())
    suite.attrib |= {"failures": str(failure_count), "errors": "0", "skipped": "0"}
    root = ElementTree.Element("testsuites")
    root.append(suite)
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def _add_case(
    suite: ElementTree.Element, difference: RunDifference, items: list[MapDifference]
) -> bool:
    """Add the test case of one image; return whether it is a failure."""
    name = to_one_line(items[0].image)[:MAX_NAME_CHARACTERS]
    case = ElementTree.SubElement(suite, "testcase", name=name, classname="camcli.diff")
    texts = [
        f"{to_one_line(item.method)}: {reason.text}" for item in items for reason in item.reasons
    ]
    if not texts:
        return False
    is_failure = any(is_failing(difference, item) for item in items)
    if is_failure:
        found = ElementTree.SubElement(case, "failure", message=texts[0], type="difference")
    else:
        found = ElementTree.SubElement(case, "system-out")
    found.text = "\n".join(texts)
    return is_failure


def is_failing(difference: RunDifference, item: MapDifference) -> bool:
    """Whether an image is a reason why the runs are not the same; others are allowed to differ."""
    return (item.is_class_changed and difference.has_too_many_class_changes) or (
        item.is_beyond_limits and difference.has_too_many_differences
    )


def _list_targets(item: MapDifference) -> list[str]:
    sides = (item.base_explanation, item.new_explanation)
    return list(dict.fromkeys(target for side in sides if side for target in side.targets))


def _side_to_json(
    result: StoredResult | None, explanation: StoredExplanation | None
) -> Mapping[str, Any] | None:
    if result is None or explanation is None:
        return None
    return {
        "class_index": explanation.class_index,
        "class": explanation.class_label,
        "predicted": explanation.is_predicted,
        "score": explanation.score,
        "map_status": explanation.map_status,
        "map": explanation.files.get(MAP_KIND),
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
