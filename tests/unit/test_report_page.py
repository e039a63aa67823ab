"""The page is one file, shows hostile names as they are, and is written by the command."""

import re
import sys

import pytest
from PIL import Image
from rich.console import Console

from fitdiff.report import find_runs, render
from fitdiff.report.__main__ import Options, write
from fitdiff.report.page import _breakable
from fitdiff.report.pictures import galleries, thumbnail
from tests.unit.report_runs import evaluation, picture, training

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def outputs(tmp_path):
    for seed in range(3):
        training(tmp_path, f"grid/wide-s{seed}", 2.0 + seed, seed=seed, denoiser__channels=64)
    training(tmp_path, EVIL.replace("/", "_"), 1.5, denoiser__channels="<img src=x onerror=alert(2)>")
    evaluation(tmp_path, "people", {"<b>bold</b>": 1.25, "y": 2.0})
    return tmp_path


def test_the_page_has_the_numbers(outputs):
    page = render(find_runs(str(outputs)))
    assert "5 runs in 3 configurations" in page
    assert re.search(r'data-v="3.0">3\s*<small>0.5159 to 5.484</small>', page), "3 ± 4.302653 / sqrt(3)"
    assert "FitDiff (published)" in page
    assert "one photo had no face" in page
    assert "python train.py name=grid/wide-s1 seed=1" in page


def test_nothing_from_a_file_is_markup(outputs):
    page = render(find_runs(str(outputs)), title=EVIL).replace("<wbr>", "")
    assert page.count("<script>") == 1
    assert "<img src=x" not in page
    assert "<b>bold" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page


def test_names_break_between_their_parts_and_numbers_do_not():
    assert _breakable("a/b_c-1 2026-11-23 of 0.6.2 x.png _target_") == (
        "a/<wbr>b_<wbr>c-<wbr>1 2026-11-23 of 0.6.2 x.<wbr>png _target_"
    )


def test_the_page_needs_no_other_file(outputs):
    page = render(find_runs(str(outputs)))
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "url(" not in page.replace("url(#plot)", "")
    assert "default-src 'none'" in page


def test_the_same_runs_give_the_same_page(outputs):
    first, second = (re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", render(find_runs(str(outputs)))) for _ in range(2))
    assert first == second


def test_a_page_of_one_run(outputs):
    page = render(find_runs(str(outputs / "evaluations")))
    assert "1 run in 1 configuration" in page
    assert 'id="settings"' not in page
    assert 'id="legend"' not in page


def test_the_base_is_what_others_are_compared_with(tmp_path):
    for i, name in enumerate(("a", "b")):
        evaluation(tmp_path, name, {"x": 1.0 + i, "y": 2.0 + i}, known=i)
    assert "Minus b, paired" in render(find_runs(str(tmp_path)), base="b")
    assert "Minus a, paired" in render(find_runs(str(tmp_path)))


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems refuse names that are no UTF-8")
def test_a_name_that_is_no_utf8(tmp_path):
    training(tmp_path, b"caf\xe9".decode("utf-8", "surrogateescape"), 2.0)
    render(find_runs(str(tmp_path))).encode()


def test_the_command_writes_the_page_and_tells_what_it_could_not_read(outputs, tmp_path, capsys):
    (outputs / "half").mkdir()
    (outputs / "half" / "results.json").write_text("{")
    out = tmp_path / "page" / "report.html"
    write(Options(runs=str(outputs), out=str(out)), Console(stderr=True, soft_wrap=True))
    assert "half" in capsys.readouterr().err
    assert 'id="problems"' in out.read_text()


def test_no_run_is_an_error_that_says_what_a_run_is(tmp_path):
    with pytest.raises(ValueError, match=r"no run found; a run is a folder with stages.json .*nothing there"):
        write(Options(runs=str(tmp_path / "no*"), out=str(tmp_path / "x.html")), Console(quiet=True))
    assert not (tmp_path / "x.html").exists()


def test_pictures_are_small_jpegs(tmp_path):
    url, size = thumbnail(picture(tmp_path / "a.png", size=(1200, 300)), 400)
    assert url.startswith("data:image/jpeg;base64,")
    assert size == (400, 100)
    assert thumbnail(picture(tmp_path / "b.png", size=(40, 30)), 400)[1] == (40, 30), "never enlarged"


def test_transparency_lies_on_white(tmp_path):
    import base64
    import io

    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    data = base64.b64decode(thumbnail(tmp_path / "a.png", 8)[0].partition(",")[2])
    assert min(Image.open(io.BytesIO(data)).convert("L").tobytes()) > 250


def test_pictures_of_a_shared_stage_are_shown_once_and_damaged_ones_told(outputs):
    from fitdiff.report.groups import group_runs

    (outputs / "stages" / "diffusion-grid_wide-s1" / "previews" / "samples-00000040.png").write_text("no picture")
    problems = []
    made = {gallery.name: gallery for gallery in galleries(group_runs(find_runs(str(outputs)).runs), problems)}
    (shared,) = made["autoencoder/reconstruction"].shown
    assert shared.run.endswith("and 3 more")
    assert shared.groups == "0 1"
    assert len(made["diffusion/samples"].shown) == 3
    assert len(problems) == 1
    assert "grid/wide-s1" in problems[0]
