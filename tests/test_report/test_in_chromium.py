"""The pages in a real browser: nothing in the console, nothing fetched, nothing wider than a phone, both schemes."""

import re

import pytest

from eval import cli
from tests.chromium import Chromium, find_chromium

PROGRAM = find_chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed to look at the pages with")

# Elements that stick out of the window and are in no box that scrolls by itself.
STICKING_OUT = """
[...document.querySelectorAll("body *")]
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .filter(e => !e.closest(".wide, pre, svg"))
  .map(e => e.tagName + "." + e.className + " " + e.textContent.slice(0, 40)).slice(0, 5)
"""


@pytest.fixture(scope="module")
def browser():
    chromium = Chromium(PROGRAM)
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def pages(compared, finished_run, tmp_path_factory):
    single = tmp_path_factory.mktemp("single") / "report.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(finished_run.parents[1])
        assert cli.main(["report", str(finished_run), "--to", str(single)]) == 0
    return {"one run": single, "comparison": compared / "report.html"}


@pytest.mark.parametrize("page", ["one run", "comparison"])
@pytest.mark.parametrize(("width", "dark"), [(375, False), (375, True), (1200, False), (1200, True)])
def test_a_page_is_quiet_alone_and_fits(browser, pages, page, width, dark):
    browser.open(pages[page], width, dark)
    assert browser.complaints == []
    assert [each[:80] for each in browser.requests if not each.startswith(("file:", "data:"))] == []
    assert sum(each.startswith("file:") for each in browser.requests) == 1
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(STICKING_OUT) == []
    assert browser.evaluate("document.querySelectorAll('svg').length") > 5
    images = "[...document.images]"
    assert browser.evaluate(f"{images}.length") > 10
    decoded = f"Promise.all({images}.map(each => each.decode())).then(() => 'decoded')"
    assert browser.evaluate(decoded) == "decoded"


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_lines_are_told_from_the_ground(browser, pages, dark):
    """WCAG asks for a contrast of 4.5 for text, and 3 for graphics."""
    browser.open(pages["comparison"], 1200, dark)
    style = "getComputedStyle(document.documentElement).getPropertyValue"
    ground = luminance(browser.evaluate(f"{style}('--page')"))
    least = {"--ink": 7, "--muted": 4.5, "--accent": 4.5, "--good": 4.5, **{f"--row{n}": 3 for n in range(8)}}
    for name, needed in least.items():
        other = luminance(browser.evaluate(f"{style}('{name}')"))
        contrast = (max(ground, other) + 0.05) / (min(ground, other) + 0.05)
        assert contrast >= needed, (name, contrast)


def luminance(color: str) -> float:
    parts = [int(each, 16) / 255 for each in re.findall("..", color.strip().lstrip("#"))]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
