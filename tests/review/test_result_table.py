"""A run as a table of pandas."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from stored_runs import result_line, write_run

import camcli

LARGE = {"x1": 0, "y1": 0, "x2": 40, "y2": 20, "score": 0.25}
SMALL = {"x1": 1, "y1": 2, "x2": 3, "y2": 4, "score": 0.75}


def explanation(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = result_line(explanation=changes)["explanations"][0]
    return found


def test_there_is_a_row_for_each_image_method_and_class(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    lines = [
        result_line(explanations=[explanation(boxes=[SMALL, LARGE]), explanation(class_index=3)]),
        result_line(method="layercam", explanation={"boxes": [], "map_status": "constant"}),
        result_line(
            explanation={"class_index": None, "class_name": None, "score": None, "boxes": []}
        ),
    ]
    table = camcli.open_run(write_run(tmp_path, *lines)).to_dataframe()
    assert table["method"].tolist() == ["gradcam", "gradcam", "layercam", "gradcam"]
    assert table["class_index"].tolist() == [281, 3, 281, pandas.NA]
    assert table.loc[0, ["x1", "y1", "x2", "y2", "box_score"]].tolist() == [0, 0, 40, 20, 0.25]
    assert table["boxes"][0] == [SMALL, LARGE]
    assert table["x1"].isna().tolist() == [False, False, True, True]
    assert table["score"].isna().tolist() == [False, False, False, True]
    assert table["files"][1] == {"map": "a.map.png"}
    right = table[(table["map_status"] == "ok") & table["predicted"].eq(False)]
    assert right.index.tolist() == [0, 1, 3]
    assert table.groupby("method")["score"].mean()["layercam"] == 0.5


def test_the_columns_are_the_fields_of_the_results(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    table = camcli.open_run(write_run(tmp_path, result_line())).to_dataframe()
    line = result_line()
    one = line.pop("explanations")[0]
    derived = {"x1", "y1", "x2", "y2", "box_score"}
    optional = {"refine", "view", "score_kind", "against", "direction", "mask"}
    assert {*table.columns} - derived - optional == (line.keys() | one.keys()) - {
        "schema_version",
        "status",
        "key",
    }


def test_an_empty_run_has_the_same_columns(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    run = camcli.open_run(write_run(tmp_path, result_line()))
    empty = run.filter(lambda _: False).to_dataframe()
    assert len(empty) == 0
    assert empty.dtypes.equals(run.to_dataframe().dtypes)


def test_without_pandas_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    run = camcli.open_run(write_run(tmp_path, result_line()))
    with pytest.raises(camcli.UsageError, match="install it with: pip install pandas") as caught:
        run.to_dataframe()
    assert len(str(caught.value).splitlines()) == 1
