"""The page in a browser, where there is one."""

import html
import json
import shutil
import subprocess

import pytest
from support import REPOSITORY

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def in_browser(folder, tmp_path, width, script):
    """What SCRIPT, of the names `page` and `view` (document and window), returns in a browser `width` pixels wide."""
    page = html.escape((folder / "index.html").read_text())
    # In a frame, because a browser's window is at least 500 pixels wide.
    (folder / "frame.html").write_text(
        f'<iframe style="width: {width}px; height: 800px; border: 0" srcdoc="{page}"></iframe><pre></pre><script>'
        "onload = () => { const view = document.querySelector('iframe').contentWindow, page = view.document;"
        f"document.querySelector('pre').append(JSON.stringify((() => {{ {script} }})())); }}</script>"
    )
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    options += f" --disable-component-update --disable-sync --enable-logging=stderr --user-data-dir={tmp_path}/profile"
    command = [BROWSER, *options.split(), "--dump-dom", (folder / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    return json.loads(html.unescape(done.stdout.rpartition("<pre>")[2].partition("</pre>")[0]))


browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


@browser
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_page_fits_without_a_complaint_from_the_browser(build, tmp_path, width):
    script = """const root = page.documentElement, missing = [...page.images].filter(image => !image.naturalWidth);
        return [root.scrollWidth - root.clientWidth, missing.length,
          page.querySelector(".words table").scrollWidth <= root.clientWidth];"""
    assert in_browser(build(), tmp_path, width, script) == [0, 0, True]


@browser
def test_sliders_move_images(build, tmp_path):
    script = """const found = [];
        for (const figure of [page.querySelector("#slide"), page.querySelector("#scrub")]) {
          const range = figure.querySelector("input"), tile = figure.querySelectorAll(".tile")[1];
          const look = () => found.push(view.getComputedStyle(tile).backgroundPosition,
            figure.querySelector("output").value);
          const change = (control, value) => { control.value = value; control.dispatchEvent(new Event("input"));
            control.dispatchEvent(new Event("change")); look(); };
          look();
          change(range, 2);
          if (figure.querySelector("select")) change(figure.querySelector("select"), 1);
        }
        return found;"""
    found = in_browser(build(), tmp_path, 1280, script)
    # Tiles are 96 pixels; the second is that of the second method, of two pairs, then x_t of the second sample.
    moved = ["0px -192px", "0", "-192px -192px", "0.25", "-192px -288px", "0.25"]
    assert found == [*moved, "0px -192px", "t = 999", "-192px -192px", "the sample"]


@browser
@pytest.mark.parametrize("width", [360, 390, 820, 1400])
def test_words_in_plots_have_11_pixels(build, tmp_path, width):
    """They are drawn with 9 points, 12 pixels."""
    script = """return [...page.querySelectorAll(".plot img")].filter(image => image.checkVisibility())
        .map(image => 12 * image.getBoundingClientRect().width / Number(image.getAttribute("width")));"""
    found = in_browser(build(), tmp_path, width, script)
    assert len(found) >= 4
    assert min(found) >= 11


@browser
def test_the_committed_page_shows_what_matters_first_and_is_short(tmp_path):
    """On a screen of 1,400 x 900: the samples, the best six and the headline; 12 screens in all."""
    script = """const bottom = selector => page.querySelector(selector).getBoundingClientRect().bottom;
        return [bottom(".gallery"), bottom(".bests .row"), bottom(".tiles"), page.documentElement.scrollHeight,
          page.querySelectorAll("nav a[href^='#']").length];"""
    shutil.copytree(REPOSITORY / "reports", tmp_path / "reports", ignore=shutil.ignore_patterns("details"))
    *bottoms, height, links = in_browser(tmp_path / "reports", tmp_path, 1400, script)
    assert max(bottoms) <= 900
    assert height <= 12 * 900
    assert links == 11


@browser
def test_samples_open_beside_their_neighbours(build, tmp_path):
    script = """const [first] = page.querySelectorAll("#neighbours button"), dialog = page.querySelector("dialog");
        const look = () => [dialog.open, dialog.querySelector("h3").textContent,
          dialog.querySelector("[data-fact='1']").textContent];
        first.click();
        const opened = look();
        dialog.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight"}));
        const next = look();
        dialog.querySelector("[data-close]").click();
        return [opened, next, dialog.open];"""
    opened, following, still = in_browser(build(), tmp_path, 360, script)
    assert opened == [True, "Sample 0, number 2 by distance", "0.310"]
    assert following == [True, "Sample 1, number 1 by distance", "0.210"]
    assert not still


@browser
def test_numbers_are_sorted_by_a_click(build, tmp_path):
    script = """const table = page.querySelector("table.sortable"), column = 1;
        const values = () => [...table.tBodies[0].rows].map(row =>
          Number(row.cells[column].textContent.replace("\u2212", "-").replaceAll(",", "")));
        const heading = table.tHead.rows[0].cells[column], found = [];
        for (const turn of [0, 1]) { heading.querySelector("button").click();
          found.push([heading.getAttribute("aria-sort"), values()]); }
        return found;"""
    (up, rising), (down, falling) = in_browser(build(), tmp_path, 1280, script)
    assert (up, down) == ("ascending", "descending")
    assert rising == sorted(rising)
    assert falling == rising[::-1]
    assert len(set(rising)) > 3
