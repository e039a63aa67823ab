"""The report page in a real browser: what it shows, that it works, and that it asks nothing of the network."""

import os
import shutil

import pytest
from PIL import Image

from tests.conftest import run
from tests.smoke.browser import chromium
from tests.unit.report_runs import evaluation, training

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = "<script>document.title='owned'<_script>"
PICTURES = "[...document.querySelectorAll('.gallery img')]"
ROWS = "[...document.querySelectorAll('#overview-0 tbody tr')]"

pytestmark = pytest.mark.skipif(
    PROGRAM is None and os.environ.get("FITDIFF_NEED_BROWSER") != "1", reason="no chromium on PATH"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    outputs = tmp_path_factory.mktemp("outputs")
    for seed in range(3):
        training(outputs, f"wide-s{seed}", 2.0 + seed, seed=seed, denoiser__channels=64)
    training(outputs, "narrow", 2.5, denoiser__channels=32)
    training(outputs, "half", 9.0, finished=False, denoiser__channels=16)
    training(outputs, EVIL, 1.5, denoiser__channels="<img src=http://example.org/x.png>")
    for i, name in enumerate(("people-a", "people-b")):
        evaluation(outputs, name, {f"item {j}": 1.0 + i + j for j in range(5)}, known=i)
    run("-m", "fitdiff.report", f"runs={outputs}/*", f"out={outputs}/report.html")
    return outputs / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    assert PROGRAM, "FITDIFF_NEED_BROWSER=1, but there is no chromium on PATH"
    with chromium(PROGRAM, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def column(browser, index):
    return browser.js(
        f"{ROWS}.map(row => row.cells[{index}].firstChild.textContent.trim() || row.cells[{index}].innerText)"
    )


def test_the_page_loads_without_faults_and_without_the_network(browser, page):
    browser.requests.clear()
    browser.open(page)
    browser.js("[...document.querySelectorAll('details')].forEach(part => part.open = true)")
    assert browser.faults == []
    assert browser.requests == [page.resolve().as_uri()]
    assert browser.js("document.title") == "8 runs", "no script of a run's name has run"
    assert (
        browser.js(f"Promise.all({PICTURES}.map(i => (i.loading = 'eager', i.decode()))).then(all => all.length)") == 9
    )


def test_known_numbers_stand_in_the_tables(browser, page):
    browser.open(page)
    text = browser.js(f"{ROWS}.find(row => row.innerText.includes('wide')).innerText")
    assert "3\n0.5159 to 5.484" in text, "Student's interval of 2, 3, 4"
    assert EVIL in browser.js("document.querySelector('#overview-0').innerText")
    assert "item 4" in browser.js("document.querySelector('#items').textContent")
    assert "+1 behind" in browser.js("document.querySelector('#paired-0').innerText").replace("\xa0", " ")


def test_sorting_by_pointer_and_by_keyboard(browser, page):
    browser.open(page)
    last = browser.js(
        "[...document.querySelectorAll('#overview-0 thead th')].findIndex(h => /shape_mm$/m.test(h.innerText))"
    )
    values = f"{ROWS}.map(row => row.cells[{last}].dataset.v ?? null)"
    click = f"document.querySelectorAll('#overview-0 thead button')[{last}].click()"
    browser.js(click)
    assert browser.js(values) == ["3.0", "2.5", "1.5", None], "what is missing comes last"
    assert (
        browser.js(f"document.querySelectorAll('#overview-0 thead th')[{last}].getAttribute('aria-sort')")
        == "descending"
    )
    browser.js(f"document.querySelectorAll('#overview-0 thead button')[{last}].focus()")
    for kind in ("keyDown", "keyUp"):
        browser.call(
            "Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13
        )
    assert browser.js(values) == ["1.5", "2.5", "3.0", None]
    browser.js("document.querySelectorAll('#overview-0 thead button')[0].click()")
    assert browser.js(f"{ROWS}.map(row => row.cells[0].innerText)")[1:] == ["half", "narrow", "wide"]


def test_runs_are_switched_off_everywhere_and_on_again(browser, page):
    browser.open(page)
    shown = "[...document.querySelectorAll('[data-g]')].filter(e => e.style.display !== 'none').length"
    before = browser.js(shown)
    box = "[...document.querySelectorAll('[data-toggle]')].find(b => b.closest('label').innerText.includes('narrow'))"
    browser.js(f"{box}.click()")
    group = browser.js(f"{box}.dataset.toggle")
    left = browser.js(
        f"[...document.querySelectorAll('[data-g=\"{group}\"]')].filter(e => e.style.display !== 'none').length"
    )
    assert left == 0
    assert browser.js(shown) < before
    assert (
        browser.js('getComputedStyle(document.querySelector(\'#curves g[data-g~="0"][data-g~="1"]\')).display')
        != "none"
    )
    browser.js("document.querySelector('[data-show=all]').click()")
    assert browser.js(shown) == before


def test_curves_tell_their_values_under_the_pointer(browser, page):
    browser.open(page)
    browser.js("document.querySelector('.chart').scrollIntoView({block: 'center'})")
    box = browser.js(
        "(b => [b.left, b.top, b.width, b.height])(document.querySelector('.chart svg').getBoundingClientRect())"
    )
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + box[2] - 12, y=box[1] + box[3] / 2)
    text = browser.js("document.querySelector('#readout').innerText")
    assert "step 40" in text
    assert "narrow" in text
    value = float(text.split("narrow")[1].split()[0])
    assert value == pytest.approx(2.5 + 40 / 40, abs=0.03), "to the width of a line"


def test_config_differences_are_marked_against_the_chosen_run(browser, page):
    browser.open(page)
    cells = "[...document.querySelectorAll('.settings')][0].querySelectorAll('tbody td[data-g]')"
    marked = f"[...{cells}].filter(cell => !cell.classList.contains('other')).map(cell => cell.innerText)"
    select = "document.querySelector('.settings select')"
    choose = f"{select}.value = {{}}; {select}.dispatchEvent(new Event('change'))"
    names = browser.js("[...document.querySelectorAll('.settings')][0].querySelectorAll('option').length")
    seen = set()
    for index in range(names):
        browser.js(choose.format(index))
        (alike,) = browser.js(marked)
        seen.add(alike)
    assert seen == {"64", "32", "16", "<img src=http://example.org/x.png>"}


def test_a_picture_is_enlarged_and_a_link_unfolds_its_run(browser, page):
    browser.open(page)
    browser.js("document.querySelector('.picture').click()")
    assert browser.js("document.querySelector('#large').open && document.querySelector('#large img').naturalWidth > 0")
    browser.js("document.querySelector('#large button').click()")
    browser.js("document.querySelector('#provenance-table a').click()")
    browser.js("new Promise(done => setTimeout(done, 50))")
    assert browser.js("document.querySelector(location.hash).open")
    assert browser.faults == []


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_no_sideways_scrolling_and_legible_at_any_size(browser, page, tmp_path, width, height, dark):
    browser.open(page, width, height, dark)
    assert browser.js("document.documentElement.scrollWidth") <= width
    with Image.open(browser.screenshot(tmp_path / "page.png")) as picture:
        pixels = picture.convert("L").resize((64, 64)).tobytes()
    light = sum(value > 128 for value in pixels) / len(pixels)
    assert light < 0.2 if dark else light > 0.8
    contrast = """(() => { const of = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => (v / 255) ** 2.2);
        return .2126 * r + .7152 * g + .0722 * b + .05; };
      const page = of(getComputedStyle(document.body).backgroundColor);
      return ['body', '.note', 'a[href]', '.unfinished'].map(s => of(getComputedStyle(document.querySelector(s)).color))
        .map(v => Math.max(v, page) / Math.min(v, page)); })()"""
    assert min(browser.js(contrast)) > 4.5, "WCAG 2.2, 1.4.3"


def test_it_prints_unfolded(browser, page):
    browser.open(page)
    folded = "document.querySelectorAll('details:not([open])').length"
    before = browser.js(folded)
    browser.js(f"addEventListener('beforeprint', () => {{ window.foldedInPrint = {folded}; }})")
    browser.call("Page.printToPDF")
    assert before > 0, "something to unfold"
    assert browser.js("window.foldedInPrint") == 0
    assert browser.js(folded) == before, "folded again afterwards"
    assert browser.faults == []
