"""The report page, read by a parser: what it shows, and that no name in it can become code."""

from __future__ import annotations

import json
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image
from stored_runs import result_line, write_run

from camcli.core.errors import OutputError, UsageError
from camcli.review.diff.diff_runs import compare_runs
from camcli.review.pages import page_links
from camcli.review.pages.diff_page import create_diff_page
from camcli.review.pages.inline_maps import create_difference_map, encode_inline_map
from camcli.review.pages.page_links import link_to_file
from camcli.review.pages.render_page import _load_colormaps, render_page
from camcli.review.pages.write_page import write_report
from camcli.review.stored_run import open_run

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\u202egnp.exe\u202c",
    "a\nb\x1b[31m",
    "\"&'<!--",
    "${title}",
    "\ud800",
)


class Page(HTMLParser):
    """The elements of a page, and the data in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._data: list[str] = []
        self.feed(html)
        self.data = json.loads("".join(self._data))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        in_data = tag == "script" and attributes.get("id") == "data"
        (self._data if in_data else self.text).append(data)

    def count(self, tag: str) -> int:
        return [name for name, _ in self.tags].count(tag)


def make_page(folder: Path, **options: Any) -> Page:
    page_file = folder / "report.html"
    write_report(folder, page_file, **options)
    return Page(page_file.read_text())


def save_map(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def save_photo(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 20), "teal").save(path)
    return str(path)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    photo = save_photo(tmp_path / "photos" / "a #1 ?.jpg")
    folder = tmp_path / "out"
    save_map(folder / "a.map.png", [[0, 255], [10, 20]])
    lines = [result_line(path=photo), result_line(path=photo, method="layercam")]
    failed = {"image": "b.jpg", "path": "b.jpg", "status": "failed", "error": "truncated"}
    return write_run(folder, *lines, failed)


def test_a_page_shows_methods_side_by_side(run: Path) -> None:
    data = make_page(run).data
    item, failure = data["items"]
    assert data["columns"] == ["gradcam", "layercam"]
    assert data["values"] == ["score", "box area", "agreement of methods"]
    assert [tile["column"] for tile in item["tiles"]] == [0, 1]
    assert item["caption"] == "tabby 0.50"
    assert item["values"] == [0.5, round(29 * 18 / 800, 4), 1.0]
    assert item["facets"] == ["tabby", "ok", "wrong"]
    assert item["tiles"][0]["boxes"] == [[1, 2, 30, 20]]
    assert (failure["name"], failure["error"]) == ("b.jpg", "truncated")


def test_maps_are_small_grey_pictures_inside_the_page(run: Path) -> None:
    data = make_page(run).data
    content = b64decode(data["items"][0]["tiles"][0]["map"])
    picture = Image.open(BytesIO(content))
    assert np.array_equal(np.asarray(picture), [[0, 255], [10, 20]])
    assert len(content) < 100


def test_photos_are_linked_relative_to_the_page(run: Path) -> None:
    data = make_page(run).data
    assert data["items"][0]["photo"] == "../photos/a%20%231%20%3F.jpg"


def test_a_page_elsewhere_has_other_links(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "x" / "y" / "page.html"
    write_report(run, other)
    assert Page(other.read_text()).data["items"][0]["photo"].startswith("../../photos/")


def test_embedded_photos_need_no_file(run: Path) -> None:
    item = make_page(run, embed=True).data["items"][0]
    assert "photo" not in item
    thumbnail = Image.open(BytesIO(b64decode(item["thumbnail"])))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (40, 20))


def test_too_many_photos_are_not_embedded(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_links, "MAX_EMBEDDED_IMAGES", 0)
    with pytest.raises(UsageError, match="--embed takes at most 0 images"):
        write_report(run, run / "report.html", embed=True)


def test_a_photo_that_no_browser_draws_is_inside_the_page(tmp_path: Path) -> None:
    photo = tmp_path / "a.tif"
    Image.new("RGB", (40, 20), "teal").save(photo)
    folder = write_run(tmp_path / "out", result_line(path=str(photo)))
    assert "thumbnail" in make_page(folder).data["items"][0]


def test_missing_photos_and_maps_are_told(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "out", result_line(path="/nowhere/a.jpg"))
    notes = make_page(folder).data["notes"]
    assert "not where the run found them: 1, such as /nowhere/a.jpg" in notes[0]
    assert "1 map cannot be shown, such as a.map.png" in notes[1]


def test_a_run_without_maps_shows_its_overlays(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_run(folder, result_line(explanation={"files": {"overlay": "a #.jpg"}}))
    save_photo(folder / "a #.jpg")
    data = make_page(folder).data
    assert data["items"][0]["tiles"][0]["picture"] == "./a%20%23.jpg"
    assert "the run saved no maps" in data["notes"][1]


def test_a_blank_map_says_why(run: Path) -> None:
    write_run(run, result_line(explanation={"map_status": "zero_gradient", "boxes": []}))
    item = make_page(run).data["items"][0]
    assert item["tiles"][0]["status"] == "the gradient is zero here"
    assert "map" not in item["tiles"][0]
    assert item["facets"][1] == "zero gradient"


def test_a_crop_places_its_map(run: Path) -> None:
    view = {"left": 10, "top": 0, "right": 30, "bottom": 20}
    write_run(run, result_line(view=view))
    assert make_page(run).data["items"][0]["tiles"][0]["view"] == [10, 0, 30, 20]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text(tmp_path: Path, name: str) -> None:
    changes = {"class_name": name, "files": {name: name}, "map_status": name, "targets": [name]}
    line = result_line(image=name, path=name, method=name, model=name, layers=[name])
    line["explanations"][0] |= changes
    failed = {"image": name, "path": name, "status": "failed", "error": name}
    folder = write_run(tmp_path / "out", line, failed)
    (folder / "run.json").write_text(json.dumps({"state": name, name: {name: name}}))
    page = make_page(folder)
    plain = Page(render_page_of_nothing())
    rows = page.count("tr")
    assert page.count("script") == plain.count("script")
    assert page.count("img") == plain.count("img") == 0
    assert rows == 3
    shown = json.dumps(page.data, ensure_ascii=False)
    assert shown.isprintable()


def render_page_of_nothing() -> str:
    from camcli.review.pages.page_data import ReportPage

    return render_page(ReportPage("t", "a", (), ())).decode()


def test_a_page_fetches_nothing() -> None:
    page = Page(render_page_of_nothing())
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv")]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data: file: 'self';")
    assert "http" not in policy
    addresses = [a for _, attributes in page.tags for a in attributes if a in ("src", "href")]
    assert addresses == []


@pytest.mark.parametrize(
    "name", ["https://evil.example/a.jpg", "javascript:alert(1)", "//host/a", "data:x", "a b"]
)
def test_an_address_is_a_file(tmp_path: Path, name: str) -> None:
    address = link_to_file(f"{tmp_path}/{name}", tmp_path)
    assert address.startswith("./")
    assert ":" not in address
    assert "//" not in address


def test_only_a_page_of_camcli_is_replaced(run: Path) -> None:
    page_file = run / "page.html"
    write_report(run, page_file)
    write_report(run, page_file)
    page_file.write_text("<html>mine</html>")
    with pytest.raises(OutputError, match="exists and is no page of camcli"):
        write_report(run, page_file)
    assert page_file.read_text() == "<html>mine</html>"


def test_a_folder_without_results_has_no_page(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has none of results\.jsonl, compare\.jsonl"):
        write_report(tmp_path, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_half_finished_run_says_so(run: Path) -> None:
    (run / "run.json").write_text('{"state": "running"}')
    with (run / "results.jsonl").open("a") as log:
        log.write('{"image": "c.j')
    notes = make_page(run).data["notes"]
    assert "the run is not complete: its state is running" in notes
    assert any(note.startswith("1 line is damaged") for note in notes)


def test_the_table_without_scripts_has_the_first_results(tmp_path: Path) -> None:
    lines = [result_line(image=f"{n}.jpg", path=f"{n}.jpg") for n in range(300)]
    page = make_page(write_run(tmp_path / "out", *lines))
    assert page.count("tr") == 201
    assert "The first 200 of 300 results." in "".join(page.text)


def test_colours_are_those_of_matplotlib() -> None:
    for name, table in _load_colormaps("jet").items():
        expected = matplotlib.colormaps[name](np.linspace(0, 1, 33))[:, :3]
        assert np.abs(np.asarray(table) - expected).max() < 0.001, name
    assert next(iter(_load_colormaps("jet"))) == "jet"
    assert next(iter(_load_colormaps("unknown"))) == "turbo"


def test_large_maps_are_reduced() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (224, 224)).astype(np.uint8)
    picture = Image.open(BytesIO(b64decode(encode_inline_map(Image.fromarray(noise)))))
    assert picture.size == (56, 56)


def test_a_difference_map_is_the_size_of_the_change() -> None:
    base, new = (Image.fromarray(np.array([row], np.uint8)) for row in ([0, 200], [50, 100]))
    change, largest = create_difference_map(base, new)
    assert np.allclose(np.asarray(change), [[127.5, 255]], atol=1)
    assert largest == pytest.approx(100 / 255)
    same, none = create_difference_map(base, base)
    assert (np.asarray(same).max(), none) == (0, 0)


def test_the_page_of_a_difference_shows_both_runs(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    save_map(other / "a.map.png", [[255, 0], [10, 20]])
    lines = [
        result_line(method=name, path=str(tmp_path / "photos" / "a #1 ?.jpg"))
        for name in ("gradcam", "layercam")
    ]
    write_run(other, *lines)
    difference = compare_runs(open_run(run), open_run(other), is_common_only=True)
    data = Page(render_page(create_diff_page(difference, tmp_path)).decode()).data
    item = next(item for item in data["items"] if len(item["tiles"]) == 3)
    assert data["columns"] == ["base", "new", "difference"]
    change = Image.open(BytesIO(b64decode(item["tiles"][2]["map"])))
    assert np.array_equal(np.asarray(change), [[255, 255], [0, 0]])
    assert "correlation" in item["caption"]
    assert item["mark"] == "wrong"


def compared_line(**changes: Any) -> dict[str, Any]:
    maps: list[dict[str, Any]] = [
        {
            "method": method,
            "row": "",
            "model": "net",
            "layers": [],
            "milliseconds": 5.0,
            "class_index": 1,
            "class_name": "tabby",
            "score": 0.5,
            "map_status": "ok",
            "boxes": [],
        }
        for method in ("gradcam", "layercam")
    ]
    return {
        "image": "a.jpg",
        "path": "a.jpg",
        "width": 4,
        "height": 2,
        "status": "ok",
        "maps": maps,
        "spearman": [[1.0, 0.25], [0.25, 1.0]],
        "file": "a.compare.jpg",
    } | changes


def write_lines(path: Path, *lines: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path.parent


def test_the_page_of_a_comparison_has_its_pictures_and_correlations(tmp_path: Path) -> None:
    outside = compared_line(file="../x.jpg")
    short = compared_line(spearman=[[1.0]])
    folder = write_lines(tmp_path / "out" / "compare.jsonl", compared_line(), outside, short, [])
    data = make_page(folder).data
    (item,) = data["items"]
    assert item["tiles"] == [{"column": 0, "picture": "./a.compare.jpg"}]
    assert item["values"] == [0.25, 10.0]
    assert data["tables"][0][1][1] == ["gradcam", "1.000", "0.250"]
    assert data["notes"] == ["3 lines are damaged and left out (line 2, 3, 4 of compare.jsonl)"]


def scored_line(method: str, iou: float, **changes: Any) -> dict[str, Any]:
    return {
        "image": "a.jpg",
        "path": "a.jpg",
        "class_index": 3,
        "model": "net",
        "method": method,
        "layers": ["last"],
        "map_status": "ok",
        "rank": 0,
        "iou": iou,
        "pointing": True,
        "split": "right",
        "image_size": [40, 20],
        "boxes": [[1, 2, 30, 20]],
        "truth_boxes": [[2.5, 2, 30, 20]],
    } | changes


def test_the_page_of_an_evaluation_has_boxes_metrics_and_charts(tmp_path: Path) -> None:
    baseline = {k: v for k, v in scored_line("random", 0.1).items() if k != "image_size"}
    folder = write_lines(
        tmp_path / "out" / "images.jsonl",
        scored_line("gradcam", 0.9),
        scored_line("cam", 0.3),
        baseline,
        scored_line("cam", 0.3, boxes=[[1]]),
    )
    metric = {"value": 0.5, "low": 0.4, "high": 0.6, "threshold": 0.25}
    row = {"model": "net", "method": "gradcam", "layers": ["last"], "metrics": {"gt": metric}}
    report = {"dataset": "d", "metrics": {"gt": "about"}, "rows": [row, 7]}
    (folder / "localization.json").write_text(json.dumps(report))
    save_photo(folder / "thresholds.png")
    data = make_page(folder).data
    (item,) = data["items"]
    assert item["truth"] == [[2.5, 2, 30, 20]]
    assert item["values"] == [0.9, 0.3]
    assert [tile["note"] for tile in item["tiles"]] == ["IoU 0.90 · right", "IoU 0.30 · right"]
    assert data["tables"][0][1][1] == ["net", "gradcam", "last", "0.500 (0.400 to 0.600) at 0.25"]
    assert data["charts"] == [["thresholds", "./thresholds.png"]]
    assert data["notes"][0] == "1 line is damaged and left out (line 4 of images.jsonl)"


@pytest.mark.parametrize("content", ["[]", "{", '{"rows": 5, "metrics": []}', '{"rows": [{}]}'])
def test_a_damaged_evaluation_is_an_error_or_an_empty_page(tmp_path: Path, content: str) -> None:
    (tmp_path / "localization.json").write_text(content)
    try:
        data = make_page(tmp_path).data
    except UsageError as error:
        assert "is not the JSON of an evaluation" in str(error)  # noqa: PT017
    else:
        assert data["items"] == []
