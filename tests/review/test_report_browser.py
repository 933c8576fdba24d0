"""The report page in a real browser: Chromium without a window, if this machine has one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from stored_runs import result_line, write_run

from camcli.review.pages.write_page import write_report

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Opened:
    """A page in the browser, and every message and request of it."""

    def __init__(self, browser: Any, page_file: Path, hash_: str = "", **options: Any) -> None:
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.tab = browser.new_page(viewport={"width": 1200, "height": 800}, **options)
        self.tab.on("console", lambda message: self.messages.append(message.text))
        self.tab.on("pageerror", lambda error: self.messages.append(str(error)))
        self.tab.on("dialog", lambda dialog: self.messages.append(dialog.message))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(page_file.as_uri() + hash_)
        self.tab.wait_for_selector("article", timeout=20_000)

    def names(self) -> list[str]:
        return [str(text) for text in self.tab.locator("article .name").all_text_contents()]

    def levels(self) -> list[float]:
        text = self.tab.locator("#color feFuncA").get_attribute("tableValues")
        return [float(part) for part in text.split()]

    def set_range(self, id_: str, value: float) -> None:
        script = "([id, v]) => { const e = document.getElementById(id); e.value = v; e.oninput(); }"
        self.tab.evaluate(script, [id_, value])


def make_run(folder: Path, count: int) -> Path:
    """A run of two methods on `count` images, with scores that grow, and one failure."""
    Image.new("RGB", (40, 20), (40, 90, 160)).save(folder / "photo.jpg")
    out = folder / "out"
    lines = []
    for n in range(count):
        scored = {"score": n / count, "class_name": "tabby" if n % 3 else "lynx", "class_index": n}
        for method in ("gradcam", "layercam"):
            line = result_line(
                image=f"{n:04}.jpg",
                path=str(folder / "photo.jpg"),
                method=method,
                explanation=scored,
            )
            lines.append(line)
    failed = {"image": "bad.jpg", "path": "bad.jpg", "status": "failed", "error": "truncated"}
    write_run(out, *lines, failed)
    values = np.array([[0, 80], [160, 255]], np.uint8)
    Image.fromarray(values).save(out / "a.map.png")
    write_report(out, out / "report.html")
    return out / "report.html"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"), 450)


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Opened]:
    opened = Opened(browser, page_file)
    yield opened
    assert opened.messages == []
    assert all(url.startswith(("file:", "data:")) for url in opened.requests)
    opened.tab.close()


def test_a_page_has_200_items_and_goes_on(page: Opened) -> None:
    assert len(page.names()) == 200
    page.tab.locator(".pages button", has_text="after").first.click()
    assert page.names()[0] == "0200.jpg"
    page.tab.locator(".pages button", has_text="after").first.click()
    assert page.names()[-1] == "bad.jpg"
    assert "truncated" in page.tab.locator("article.failed").inner_text()


def test_the_text_filter_finds_images_and_classes(page: Opened) -> None:
    page.tab.fill("#query", "LYNX 0003")
    playwright.expect(page.tab.locator("article")).to_have_count(1)
    assert page.names() == ["0003.jpg"]
    page.tab.fill("#query", "nothing like it")
    playwright.expect(page.tab.locator("article")).to_have_count(0)
    assert page.tab.locator("#empty").is_visible()


def test_facets_and_sorting(page: Opened) -> None:
    page.tab.locator("#facets select").first.select_option("lynx")
    page.tab.select_option("#sort", "0:down")
    assert page.names()[:2] == ["0447.jpg", "0444.jpg"]
    assert page.tab.locator("#counts").inner_text().startswith("150 of 451 shown")
    page.tab.select_option("#sort", "0:up")
    assert page.names()[0] == "0000.jpg"


def test_sliders_change_the_one_filter(page: Opened) -> None:
    assert page.levels()[255] == pytest.approx(0.7)
    assert page.levels()[128] == pytest.approx(0.7 * 128 / 255, abs=1e-3)
    page.set_range("opacity", 1)
    page.set_range("threshold", 0.5)
    assert page.levels()[127] == 0
    assert page.levels()[128] == pytest.approx(128 / 255, abs=1e-3)
    page.tab.uncheck("#fade")
    assert page.levels()[128] == 1
    page.tab.select_option("#colormap", "gray")
    assert page.tab.locator("#color feFuncR").get_attribute("tableValues").split()[16] == "0.502"


def test_the_map_is_drawn_over_the_photo(page: Opened) -> None:
    """In grey, the corners of the picture on the screen have the values of the map."""
    page.tab.uncheck("#boxes")
    page.tab.uncheck("#fade")
    page.set_range("opacity", 1)
    page.tab.select_option("#colormap", "gray")
    page.tab.wait_for_timeout(300)
    place = page.tab.locator("article .frame").first.bounding_box()
    shot = np.asarray(Image.open(BytesIO(page.tab.screenshot())).convert("L"), float)
    left, top = place["x"], place["y"]
    right, bottom = left + place["width"], top + place["height"]
    corners = [
        shot[round(y), round(x)] for y in (top + 9, bottom - 9) for x in (left + 9, right - 9)
    ]
    assert np.allclose(corners, [0, 80, 160, 255], atol=14)


def test_columns_can_be_hidden(page: Opened) -> None:
    page.tab.locator("#columns input").first.uncheck()
    assert page.tab.locator("article").first.locator("figure").count() == 1


def test_the_keyboard_leads_through_the_large_view(page: Opened) -> None:
    press = page.tab.keyboard.press
    page.tab.locator("article").nth(1).focus()
    press("Enter")
    assert page.tab.locator("#large-title").inner_text().endswith("0001.jpg")
    press("ArrowRight")
    assert page.tab.locator("#large-title").inner_text().endswith("0002.jpg")
    press("ArrowLeft")
    press("ArrowLeft")
    press("ArrowLeft")
    assert page.tab.locator("#large-title").inner_text().endswith("0000.jpg")
    assert page.tab.locator("#large-tiles figure").count() == 2
    press("2")
    assert page.tab.locator("#large-tiles figcaption").inner_text() == "layercam"
    press("0")
    assert page.tab.locator("#large-tiles figure").count() == 2
    press(" ")
    assert not page.tab.locator("#large-tiles img.map").first.is_visible()
    press(" ")
    press("b")
    assert not page.tab.locator("#boxes").is_checked()
    press("Escape")
    assert not page.tab.locator("#large").is_visible()


def test_the_address_keeps_the_state(browser: Any, page: Opened, page_file: Path) -> None:
    page.tab.locator("#facets select").first.select_option("lynx")
    page.tab.select_option("#sort", "0:down")
    page.tab.locator("article").first.click()
    hash_ = page.tab.evaluate("location.hash")
    again = Opened(browser, page_file, hash_)
    assert again.tab.locator("#large-title").inner_text().endswith("0447.jpg")
    assert again.names() == page.names()
    again.tab.close()


def test_without_scripts_there_is_a_table(browser: Any, page_file: Path) -> None:
    tab = browser.new_page(java_script_enabled=False)
    tab.goto(page_file.as_uri())
    assert tab.locator("table tr").count() == 201
    tab.close()


def test_hostile_names_are_text(browser: Any, tmp_path: Path) -> None:
    names = ["<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", "<\u202eevil"]
    lines = [
        result_line(image=name, path=name, method=name, explanation={"class_name": name})
        for name in names
    ]
    folder = write_run(tmp_path, *lines)
    write_report(folder, folder / "report.html")
    opened = Opened(browser, folder / "report.html", "#q=<&open=0&sort=9:up&page=99&hide=x")
    opened.tab.wait_for_timeout(200)
    assert opened.messages == []
    opened.tab.close()
