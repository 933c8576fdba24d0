"""`--scale`: the raw values that pictures draw as 0 and 1."""

from __future__ import annotations

import pytest

from camcli.core.errors import UsageError
from camcli.io.value_ranges import ValueRange, parse_scale


def test_scales_as_users_write_them() -> None:
    assert parse_scale("image") is None
    assert parse_scale("run") == ValueRange()
    assert parse_scale("0..3.2") == ValueRange((0.0, 3.2))
    assert parse_scale("-1e-3..2") == ValueRange((-0.001, 2.0))


@pytest.mark.parametrize(
    "text", ["", "runs", "3..1", "1..1", "1", "..", "0..inf", "nan..1", "a..b"]
)
def test_other_scales_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"write image, run, or a range such as 0..3.2"):
        parse_scale(text)


def test_ranges_are_told_apart_by_their_text() -> None:
    assert str(ValueRange((0.0, 3.2))) == "0..3.2"
    assert str(ValueRange(ranges={("a", "x"): (0.0, 2.0), ("a", "w"): (1.0, 2.0)})) == (
        "a w 1..2, a x 0..2"
    )


def test_a_range_is_found_by_method_and_map() -> None:
    found = ValueRange(ranges={("gradcam", "bn2"): (0.0, 2.0)})
    assert found.find("gradcam", "bn2") == (0.0, 2.0)
    assert found.find("gradcam", "fused") is None
    assert ValueRange((1.0, 2.0)).find("any", "map") == (1.0, 2.0)
