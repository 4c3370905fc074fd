"""The page's two forms: what they load, what they show, and what lies beside them."""

import html
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from page_inputs import DETAILS, MINUS
from PIL import Image
from support import REPOSITORY

from ddpm.sampling.samplers import SAMPLERS
from stages.kit.errors import StageError
from stages.kit.params import read_params
from stages.page.publish import PICTURES, PLOTS, publish

FIGURES = {
    f"figures/{name}"
    for name in (*PICTURES, *(f"{name}.svg" for name in (*PLOTS, "loss", "quality_time", "comparison")))
}
INSTEAD = {"figures/samples.png"}
"""In the page for the browser the samples open beside their neighbours."""


class Tags(HTMLParser):
    """The start tags of a page, with their attributes, and a check that what opens closes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.open = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def test_page_loads_what_lies_beside_it_and_nothing_else(build):
    folder = build()
    text = (folder / "index.html").read_text()
    tags = Tags(text)
    loaded = [
        value for _, attrs in tags.found for name in ("src", "srcset", "data", "poster") if (value := attrs.get(name))
    ]
    loaded += re.findall(r"url\(([^)]+)\)", text)
    loaded += [attrs["href"] for attrs in tags.all("a") if attrs["href"].startswith("figures/")]
    assert all((folder / value).is_file() for value in loaded)
    assert sorted({path.relative_to(folder).as_posix() for path in (folder / "figures").iterdir()}) == sorted(loaded)
    assert [attrs["href"] for attrs in tags.all("link")] == ["data:,"]
    assert "@import" not in text
    assert len(text) < 150_000


def test_page_shows_the_figures_as_drawn(build, tmp_path):
    """Plots and samples to the byte or pixel; other pictures are compressed, which changes them by little."""
    folder = build()
    images = Tags((folder / "index.html").read_text()).all("img")
    assert {image["src"] for image in images} == FIGURES - INSTEAD
    assert all(len(image["alt"]) > 20 for image in images)
    for name in PLOTS:
        assert (folder / "figures" / f"{name}.svg").read_bytes() == (tmp_path / "figures" / f"{name}.svg").read_bytes()
    for name in PICTURES:
        shown = Image.open(folder / "figures" / name)
        given = np.asarray(Image.open((tmp_path / "figures" / name).with_suffix(".png")), int)
        difference = np.abs(np.asarray(shown.convert("RGBA"), int) - given).mean()
        assert difference == 0 if name.endswith(".png") else difference < 4


def test_plots_have_their_size_on_the_screen(build):
    """Of 3.5 inches, 336 pixels, where words of 9 points have 12 pixels."""
    plots = [image for image in Tags((build() / "index.html").read_text()).all("img") if image["src"].endswith(".svg")]
    assert {image["width"] for image in plots} == {"336"}


def test_figures_are_written_anew(build):
    stale = build() / "figures" / "stale.png"
    stale.touch()
    build()
    assert not stale.exists()


def test_large_images_make_no_large_pictures(build, tmp_path):
    """Grids of 64 images of 256 pixels; strips keep their size, which doesn't depend on that of the images."""
    build()
    pixels = np.random.default_rng(0).integers(0, 256, (1700, 2066, 3), dtype=np.uint8)
    for name in ("samples", "processes"):
        Image.fromarray(pixels).save(tmp_path / "figures" / f"{name}.png")
    shown = publish(tmp_path / "figures", tmp_path / "published")
    assert shown["samples"].size == (680, 560)
    assert shown["processes"].size == (2066, 1700)


def test_only_figures_of_the_page_are_replaced(build, tmp_path):
    """A folder `figures` below --reports may be somebody's own, or the one that they were drawn into."""
    build()
    theirs = tmp_path / "theirs" / "thesis.tex"
    theirs.parent.mkdir()
    theirs.touch()
    with pytest.raises(StageError, match=r"thesis\.tex: no stage writes this"):
        publish(tmp_path / "figures", theirs.parent)
    assert theirs.exists()
    with pytest.raises(StageError, match="would replace those"):
        publish(tmp_path / "figures", tmp_path / "figures")
    assert (tmp_path / "figures" / "samples.png").exists()


def test_a_missing_input_is_one_line(build, tmp_path):
    build()
    (tmp_path / "figures" / "metrics.svg").unlink()
    options = ["figures", "details", "latents", "model", "tuned", "gan", "images", "samples", "reports"]
    options = [word for name in options for word in (f"--{name}", name)]
    options += ["--losses", ".", "--neighbours", "neighbours.csv", "--benchmarks", "."]
    done = subprocess.run(
        [sys.executable, "-m", "stages.page", *options],
        env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert re.fullmatch(r"page: error: .*figures/metrics.svg.*\n", done.stderr)


def test_markdown_links_to_the_figures(build):
    folder = build()
    text = (folder / "page.md").read_text()
    links = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert set(links) == FIGURES
    assert all((folder / link).is_file() for link in links)
    assert "\n\n\n" not in text


@pytest.mark.parametrize("name", read_params().mapping("sources"))
def test_each_source_has_its_words(build, name):
    text = (build(params={"data": name}) / "page.md").read_text()
    kind = read_params().mapping("sources", name)["kind"]
    drawn, here = "generated by this repository", "images from this machine"
    assert {"generate": drawn, "lsun": "photographs from LSUN", "path": here, "folder": here}[kind] in text


@pytest.mark.parametrize("name", SAMPLERS)
def test_each_sampler_has_its_words(build, name):
    text = (build(params={"sample.sampler": name, "sample.steps": 20}) / "page.md").read_text()
    assert re.search(r"were drawn by [A-Za-z].* in 20 of the 1,000 steps", text)


def test_markdown_tables_are_whole(build):
    blocks = re.findall(r"(?:^\|.*\n)+", (build() / "page.md").read_text(), flags=re.MULTILINE)
    assert len(blocks) >= 8
    for block in blocks:
        first, rule, *rows = block.splitlines()
        assert set(rule) <= set("|-:")
        assert rows
        assert {line.count("|") for line in (rule, *rows)} == {first.count("|")}


def test_all_equations_are_there_once(build):
    folder = build()
    for name, number in {
        "index.html": r'(?:class="no">|· </span>)\((\d+)\)<',
        "page.md": r"\*\*\((\d+)\)\*\*",
    }.items():
        found = re.findall(number, (folder / name).read_text())
        assert sorted(map(int, found)) == list(range(1, 15)), name


def test_metrics_are_few_flat_and_the_ones_that_matter(build):
    """As the stages' details have them; 0 of 64 samples are flagged."""
    metrics = json.loads((build() / "metrics.json").read_text())
    samples = DETAILS["evaluate"]["samples"]
    assert metrics == {
        "kid": 0.5, "kid_low": 0.45, "kid_high": 0.55, "precision": samples["precision_alexnet"]["value"],
        "recall": samples["recall_alexnet"]["value"], "lpips6": 0.2, "copies": 0, "loss": 0.0876,
    }  # fmt: skip
    rank = DETAILS["rank"]
    copied = {**rank, "copies": {**rank["copies"], "samples": {**rank["copies"]["samples"], "value": 0.046875}}}
    assert json.loads((build({"rank": copied}) / "metrics.json").read_text())["copies"] == 3
    copied["copies"]["limit"] = 0.0  # nothing can be flagged
    assert "copies" not in json.loads((build({"rank": copied}) / "metrics.json").read_text())


def test_same_inputs_give_the_same_bytes(build):
    def contents():
        return {path.name: path.read_bytes() for path in sorted(build().rglob("*")) if path.is_file()}

    assert contents() == contents()


def test_numbers_come_with_n_and_interval(build):
    folder = build()
    wanted = ["0.150 to 0.250", "0.500 [0.450, 0.550]", f"0.010 [{MINUS}0.040, 0.060]", "3,456,789", "√6912 = 83.1"]
    wanted += ["58.8", "64 samples and 4,000 real images", "+2.0 (+2.0)", "12.1\N{EN DASH}12.6"]
    wanted += ["unipc, 10 steps, logsnr, float32", f"+0.0010 [{MINUS}0.0053, 0.0510]"]
    for name in ("index.html", "page.md"):
        text = html.unescape((folder / name).read_text()).replace("\N{NO-BREAK SPACE}", " ")
        assert [words for words in wanted if words not in text] == []
        assert not re.search(rf"{MINUS}0\.0\b", text.replace(f"{MINUS}0.040", "")), "a negative zero"


def test_parameters_are_those_of_the_run(build):
    text = (build(params={"sample.steps": 20}) / "page.md").read_text()
    assert "| `sample.steps` | `20` |" in text
    assert "| `models.tiny.recipe.target` | `v` |" in text
    assert "models.paper." not in text
    assert "runtime" not in text


def test_values_are_escaped_in_the_page_alone(build):
    folder = build()
    assert "2 cores of &lt;some&gt; CPU" in (folder / "index.html").read_text()
    assert "2 cores of <some> CPU" in (folder / "page.md").read_text()
