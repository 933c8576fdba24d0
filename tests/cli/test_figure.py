"""`camcli figure` and `--save sheet`: files, exit status, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import SAMPLES, Cli
from PIL import Image

from camcli.cli import completions
from camcli.cli.figure_declarations import choose_output, parse_length
from camcli.core.errors import UsageError
from camcli.runs import explain_sheet
from camcli.runs.explain_sheet import MAX_IMAGES

QUICK = ("--dpi", 60)


def test_a_sheet_takes_the_next_free_name_and_has_the_width(cli: Cli, tmp_path: Path) -> None:
    arguments = ("figure", SAMPLES, *QUICK)
    assert (first := cli(*arguments)).status == 0, first.err
    assert first.out == "camcli-figure.png\n"
    assert cli(*arguments, "--width", "120mm").out == "camcli-figure-2.png\n"
    with Image.open(tmp_path / "camcli-figure.png") as sheet:
        assert sheet.width == round(7.16 * 60)
    with Image.open(tmp_path / "camcli-figure-2.png") as sheet:
        assert sheet.width == round(120 / 25.4 * 60)


def test_the_sheet_of_an_earlier_run_is_no_input(cli: Cli, picture: Path) -> None:
    arguments = ("figure", picture.parent, "-o", picture.parent / "sheet.jpg", *QUICK)
    assert "1 image" in cli(*arguments).err
    assert "1 image" in cli(*arguments, "--overwrite").err


def test_pages_are_one_pdf_but_several_pictures(cli: Cli, tmp_path: Path) -> None:
    arguments = ("figure", SAMPLES, "--width", "3in", "--height", "2in", *QUICK)
    assert cli(*arguments, "-o", "a.pdf").out == "a.pdf\n"
    pages = len(re.findall(rb"/MediaBox", (tmp_path / "a.pdf").read_bytes()))
    assert pages > 1
    listed = cli(*arguments, "-o", "a.png").out.split()
    assert listed == ["a.png", *(f"a-page{n}.png" for n in range(2, pages + 1))]


def test_what_is_missing_makes_the_status_1_and_is_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    ran = cli("figure", "broken.jpg", SAMPLES / "rocket.jpg", *QUICK)
    assert ran.status == 1
    assert "broken.jpg: not an image" in ran.err
    assert "2 images, 1 missing" in ran.err
    assert ran.out == "camcli-figure.png\n"


def test_several_models_side_by_side(cli: Cli, tmp_path: Path) -> None:
    models = "tf_efficientnet_lite0,tscam_vit_lite0"
    ran = cli("figure", SAMPLES / "coffee.jpg", "--models", models, "-o", "a.svg", *QUICK)
    assert ran.status == 0, ran.err
    text = (tmp_path / "a.svg").read_text()
    assert all(name in text for name in (*models.split(","), "espresso 0.89", "espresso 0.79"))


REFUSED = {
    "no such column": (["--columns", "gradcm"], "did you mean gradcam"),
    "titles": (["--titles", "a,b,c"], "--titles has 3 words for 2 columns"),
    "width": (["--width", "wide"], "--width wide: write a length"),
    "format": (["-o", "a.gif"], "must end in .png, .jpg, .pdf or .svg"),
    "two formats": (["-o", "a.png", "--image-format", "pdf"], "must end in .pdf"),
    "fusion": (["--fusion", "none"], "write layers in --columns"),
    "idle methods": (["-m", "cam,gradcam", "--columns", "image,fused"], "write methods"),
    "idle models": (["--models", "a,b", "--columns", "image,fused"], "write models"),
    "image row": (["--rows", "image,cam"], "--rows: image is a column"),
    "no maps": (["--columns", "image"], "name at least one map"),
    "colormap": (["--colormap", "jett"], "did you mean jet"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_use_is_refused_in_one_line(case: str, cli: Cli, picture: Path) -> None:
    options, message = REFUSED[case]
    ran = cli("figure", picture, *options)
    assert ran.status == 2
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1


def test_lengths_have_units() -> None:
    assert parse_length("--width", "7.16in", 300) == 7.16
    assert parse_length("--width", "25.4 mm", 300) == pytest.approx(1)
    assert parse_length("--width", "2.54cm", 300) == pytest.approx(1)
    assert parse_length("--width", "600px", 300) == 2
    for text in ("", "7", "0in", "-3in", "1e9in", "99999999px", "nanin", "9000in"):
        with pytest.raises(UsageError, match="--width"):
            parse_length("--width", text, 300)


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.PNG"
    assert choose_output(path, None, False) == path
    path.touch()
    with pytest.raises(UsageError, match="exists"):
        choose_output(path, None, False)
    assert choose_output(path, None, True) == path


def test_columns_are_completed() -> None:
    assert completions.complete_columns("image,fu") == ["image,fused", "image,fullgrad"]


def test_a_run_writes_one_sheet_the_same_when_resumed(cli: Cli, tmp_path: Path) -> None:
    command = ("explain", SAMPLES, "--layers", "stage4..5", "-m", "layercam", "-o", "o")
    ran = cli(*command, "--save", "sheet,boxes")
    assert ran.status == 0, ran.err
    sheet = tmp_path / "o" / "sheet.jpg"
    first = sheet.read_bytes()
    with Image.open(sheet) as opened:
        assert opened.width == 1500
    assert [sorted(e["files"]) for line in ran.lines for e in line["explanations"]] == [
        ["boxes"]
    ] * 4
    log = tmp_path / "o" / "results.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))
    sheet.unlink()
    assert cli(*command, "--save", "sheet,boxes", "--resume").status == 0
    assert sheet.read_bytes() == first
    assert json.loads((tmp_path / "o" / "run.json").read_text())["state"] == "done"


def test_a_sheet_says_when_it_does_not_show_all(cli: Cli, tmp_path: Path) -> None:
    count = MAX_IMAGES + 1
    (tmp_path / "many").mkdir()
    for number in range(count):
        Image.new("RGB", (32, 32), (9 * number, 60, 99)).save(tmp_path / "many" / f"{number}.png")
    ran = cli("explain", "many", "--save", "sheet", "-o", "o")
    assert f"shows the first {MAX_IMAGES} of {count} images" in ran.err


def test_rows_that_do_not_fit_go_to_more_sheets(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Rows of 3 to 4 inches: two fit on a page.
    style = replace(explain_sheet.SCREEN_STYLE, dpi=20, max_height=7.5)
    monkeypatch.setattr(explain_sheet, "SCREEN_STYLE", style)
    ran = cli("explain", SAMPLES, "--save", "sheet", "-o", "o")
    assert ran.status == 0, ran.err
    assert "(open o/sheet.jpg)" in ran.err
    pages = [path.name for path in sorted((tmp_path / "o").glob("sheet*"))]
    assert pages == ["sheet-page2.jpg", "sheet.jpg"]


def test_a_method_that_does_not_suit_is_left_out_and_told(cli: Cli, picture: Path) -> None:
    ran = cli("figure", picture, "--columns", "image,stage2,rollout", *QUICK)
    assert ran.status == 1
    assert "left out: rollout needs attention" in ran.err
    assert ran.out == "camcli-figure.png\n"
    alone = cli("figure", picture, "--model", "tf_efficientnet_lite0", "--columns", "rollout")
    assert alone.status == 2
