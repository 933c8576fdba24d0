"""How fast report pages open and follow a slider, in Chromium without a window.

    python -m benchmarks.report

Needs playwright and Chromium. The runs are made up: grey photographs, and maps of 7 x 7. A page
counts as open when its first items are drawn. A step of a slider counts until two frames later.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from camcli.review.pages.write_page import write_report

METHODS = ("gradcam", "layercam")
PAGES = ((1000, False), (1300, True), (20_000, False))
STEPS = 20
STEP_SCRIPT = """async (value) => {
  const slider = document.getElementById("opacity");
  const frame = () => new Promise(requestAnimationFrame);
  const start = performance.now();
  slider.value = value;
  slider.oninput();
  await frame();
  await frame();
  return performance.now() - start;
}"""


def make_run(folder: Path, count: int) -> None:
    """A run of two methods on `count` images; all share a hundred photographs and maps."""
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir(parents=True)
    for n in range(100):
        pixels = rng.integers(0, 255, (24, 32, 3)).astype(np.uint8)
        photo = Image.fromarray(pixels).resize((320, 240), Image.Resampling.BICUBIC)
        photo.save(folder / "photos" / f"{n}.jpg")
        Image.fromarray(rng.integers(0, 255, (7, 7)).astype(np.uint8)).save(folder / f"{n}.map.png")
    with (folder / "results.jsonl").open("w") as log:
        for n in range(count):
            for method in METHODS:
                log.write(f"{json.dumps(_create_line(folder, n, method))}\n")
    (folder / "run.json").write_text(json.dumps({"state": "done"}))


def _create_line(folder: Path, n: int, method: str) -> dict[str, Any]:
    explanation = {
        "class_index": n % 50,
        "class_name": f"class {n % 50}",
        "score": (n * 37 % 1000) / 1000,
        "predicted": True,
        "map_status": "ok",
        "boxes": [{"x1": 40, "y1": 30, "x2": 250, "y2": 200, "score": 0.5}],
        "files": {"map": f"{n % 100}.map.png"},
    }
    return {
        "image": f"photo {n}.jpg",
        "path": str(folder / "photos" / f"{n % 100}.jpg"),
        "width": 320,
        "height": 240,
        "status": "ok",
        "model": "net",
        "method": method,
        "layers": ["last"],
        "threshold": 0.2,
        "explanations": [explanation],
    }


def measure_page(browser: Any, page_file: Path) -> tuple[float, float]:
    """Seconds until a page is open, and the median milliseconds of a step."""
    tab = browser.new_page(viewport={"width": 1400, "height": 900})
    start = time.perf_counter()
    tab.goto(page_file.as_uri(), wait_until="load")
    tab.wait_for_selector("article img.map")
    tab.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    opened = time.perf_counter() - start
    steps = [tab.evaluate(STEP_SCRIPT, 0.3 + 0.6 * n / STEPS) for n in range(STEPS)]
    tab.close()
    return opened, statistics.median(steps)


def main() -> None:
    """Print a table of pages."""
    from playwright.sync_api import sync_playwright

    print("| images, two methods | page | written in | open | step |")
    print("|---|---|---|---|---|")
    with sync_playwright() as started, tempfile.TemporaryDirectory() as parent:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for count, embed in PAGES:
            folder = Path(parent) / f"{count}"
            make_run(folder, count)
            page_file = folder / "report.html"
            start = time.perf_counter()
            write_report(folder, page_file, embed=embed)
            written = time.perf_counter() - start
            opened, step = zip(*(measure_page(browser, page_file) for _ in range(3)), strict=True)
            size = page_file.stat().st_size / 1e6
            name = f"{count:,}{', embedded' if embed else ''}"
            print(
                f"| {name} | {size:.1f} MB | {written:.1f} s | {statistics.median(opened):.2f} s "
                f"| {statistics.median(step):.0f} ms |"
            )


if __name__ == "__main__":
    main()
