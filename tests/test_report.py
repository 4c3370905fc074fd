import base64
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages import report

TEMPLATES = Path(report.__file__).parent / "templates"
FIGURES = ("data", "samples", "forward", "reverse", "interpolation", "best", "nearest", "evaluation")
MINUS = "\N{MINUS SIGN}"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def estimate(value, n=64):
    return {"value": value, "low": round(value - 0.05, 3), "high": round(value + 0.05, 3), "n": n}


def distances(median, n):
    return {"min": round(median - 0.05, 3), "median": median, "mean": median, "max": round(median + 0.05, 3), "n": n}


def measured(kid):
    channels = {"red": 2.0, "green": -3.0, "blue": -0.0001}
    return {
        "kid_alexnet": estimate(kid),
        "precision_alexnet": estimate(0.75),
        "recall_alexnet": estimate(0.5, 500),
        "diversity_lpips": estimate(0.25),
        "colour_drift": {"mean": channels, "std": channels, "saturated": channels, "n": 64},
    }


SPLIT = {
    "n": 4011,
    "images": 4000,
    "bad": 1,
    "dropped": 10,
    "enlarged": 7,
    "images_of": {"church": 4000},
    "encoding": {"jpeg": 2000, "webp": 2011, "png": 0, "other": 0},
    "mode": {"L": 10, "RGB": 4000},
}
TWINS = {"twins_in_training": {"exact": 3, "near": 4}, "twins_held_out": {"exact": 1, "near": 2}}
PATH = {
    "noise_norm": {"ends": 83.1, "middle": 58.8},
    "lpips_step": {"mean": 0.1, "largest": 0.25, "n": 24},
    "pairs": 3,
}
METRICS = {
    "extract": {"train": SPLIT | TWINS, "val": SPLIT, "near_rms": 8.0},
    "train": {
        "images": 4000,
        "steps": 2500,
        "parameters": 3456789,
        "loss": {"last_tenth": 0.0876, "n": 250},
    },
    "interpolate": {"lerp_ancestral": PATH, "slerp_ddim": PATH},
    "rank": {
        "best": distances(0.2, 6),
        "samples": distances(0.3, 64),
        "held_out": distances(0.25, 64),
        "real_pairs": distances(0.6, 1000),
    },
    "evaluate": {"samples": measured(0.5), "real": measured(0.01), "reference_images": 500},
}
TIMING = {"steps": 1000, "evaluations": 1000, "seconds": 12.3, "n": 3, "seconds_min": 12.1, "seconds_max": 12.6}
TIMINGS = {
    "machine": "2 cores of <some> CPU",
    "torch": "2.14.1",
    "model": "tiny",
    "images": 64,
    "rows": [{"sampler": "ancestral", **TIMING}, {"sampler": "ddim", **TIMING, "steps": 20}],
}


@pytest.fixture
def build(write_params, tmp_path):
    """Write the stage's inputs, with `changes` to metrics and to parameters, run it and return its folder."""

    def run(metrics=None, params=None):
        write_params(params or {})
        folder = tmp_path / "reports"
        for name in ("metrics", "figures"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for stage, values in {**METRICS, **(metrics or {})}.items():
            (folder / "metrics" / f"{stage}.json").write_text(json.dumps(values))
        (folder / "loss.csv").write_text("epoch,step,loss,learning_rate\n5,1250,0.2,0.001\n10,2500,0.1,0.0001\n")
        (folder / "timings.json").write_text(json.dumps(TIMINGS))
        for index, name in enumerate(FIGURES):
            pixels = np.random.default_rng(index).integers(0, 256, (40 + index, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "figures" / f"{name}.png")
        report.main(
            TEMPLATES,
            *(folder / "metrics" / f"{stage}.json" for stage in METRICS),
            folder / "loss.csv",
            folder / "timings.json",
            *(folder / "figures" / f"{name}.png" for name in FIGURES),
            *(folder / name for name in ("index.html", "report.md", "metrics.json", "figures/loss.png")),
        )
        return folder

    return run


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
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def test_page_loads_nothing(build):
    text = (build() / "index.html").read_text()
    tags = Tags(text)
    loaded = [
        value for _, attrs in tags.found for name in ("src", "srcset", "data", "poster") if (value := attrs.get(name))
    ]
    loaded += [attrs["href"] for attrs in tags.all("link")]
    assert all(value.startswith("data:") for value in loaded)
    assert "url(" not in text
    assert "@import" not in text
    assert not tags.all("script")


def test_page_holds_the_figures_as_given(build):
    folder = build()
    images = Tags((folder / "index.html").read_text()).all("img")
    prefix = "data:image/png;base64,"
    held = [base64.b64decode(image["src"].removeprefix(prefix), validate=True) for image in images]
    assert sorted(held) == sorted(path.read_bytes() for path in (folder / "figures").iterdir())
    assert all(len(image["alt"]) > 20 for image in images)
    sizes = {Image.open(path).size for path in (folder / "figures").iterdir()}
    assert {(int(image["width"]), int(image["height"])) for image in images} == sizes


def test_markdown_links_to_the_figures(build):
    folder = build()
    text = (folder / "report.md").read_text()
    links = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert sorted(links) == sorted(f"figures/{name}.png" for name in (*FIGURES, "loss"))
    assert all((folder / link).is_file() for link in links)
    assert "\n\n\n" not in text


def test_markdown_tables_are_whole(build):
    blocks = re.findall(r"(?:^\|.*\n)+", (build() / "report.md").read_text(), flags=re.MULTILINE)
    assert len(blocks) >= 8
    for block in blocks:
        first, rule, *rows = block.splitlines()
        assert set(rule) <= set("|-:")
        assert rows
        assert {line.count("|") for line in (rule, *rows)} == {first.count("|")}


def test_all_equations_are_there_once(build):
    folder = build()
    for name, number in {"index.html": r'class="no">\((\d+)\)<', "report.md": r"\*\*\((\d+)\)\*\*"}.items():
        found = re.findall(number, (folder / name).read_text())
        assert sorted(map(int, found)) == list(range(1, 15)), name


def test_metrics_of_all_stages_are_merged(build):
    assert json.loads((build() / "metrics.json").read_text()) == METRICS


def test_same_inputs_give_the_same_bytes(build):
    def contents():
        return {path.name: path.read_bytes() for path in sorted(build().rglob("*")) if path.is_file()}

    assert contents() == contents()


def test_numbers_come_with_n_and_interval(build):
    folder = build()
    wanted = ["0.150 to 0.250", "0.500 [0.450, 0.550]", f"0.010 [{MINUS}0.040, 0.060]", "3,456,789", "√6912 = 83.1"]
    wanted += ["58.8", "rank of at most 63 with 64 images", "+2.0 (+2.0)", "12.1 to 12.6"]
    for name in ("index.html", "report.md"):
        text = html.unescape((folder / name).read_text()).replace("\N{NO-BREAK SPACE}", " ")
        assert [words for words in wanted if words not in text] == []
        assert not re.search(rf"{MINUS}0\.0\b", text.replace(f"{MINUS}0.040", "")), "a negative zero"


def test_words_follow_the_numbers(build):
    text = (build() / "report.md").read_text()
    assert "no nearer to the training images than new real images" in text
    assert "wholly above 0" in text
    near = {**METRICS["rank"], "samples": distances(0.1, 64), "best": distances(0.06, 6)}
    alike = {**METRICS["evaluate"], "samples": measured(0.04)}
    text = (build({"rank": near, "evaluate": alike}) / "report.md").read_text()
    assert "lie nearer to the training images than new real images" in text
    assert "nearer than any held-out image" in text
    assert "interval holds 0" in text


def test_what_became_of_the_data_is_told(build):
    text = (build() / "report.md").read_text()
    assert "3 repeat an earlier one pixel for pixel and 4 nearly so; 1 and 2 are held-out images as well" in text
    assert "They were kept." in text
    assert "centre crops, resized" in text
    split = {**SPLIT, "images_of": {"church": 3000, "tower": 1000}}
    none = {name: {"exact": 0, "near": 0} for name in TWINS}
    classes = {"train": split | none, "val": split, "near_rms": 8.0}
    changes = {"sources.demo.categories": ["church", "tower"], "extract.geometry": "squash", "extract.dedupe": "drop"}
    text = (build({"extract": classes}, changes) / "report.md").read_text()
    assert re.search(r"\| split +\| church +\| tower +\|", text)
    assert re.search(r"\| training +\| 3,000 +\| 1,000 +\|", text)
    assert "The first training images of each category" in text
    assert "whole pictures, resized" in text
    assert "These were left out" not in text


@pytest.mark.parametrize(("data", "words"), [("demo", "the data differ"), ("lsun", "of the same kind here")])
def test_distances_are_compared_with_the_report_s_only_on_its_data(build, data, words):
    text = (build(params={"data": data, "model": "paper"}) / "report.md").read_text()
    assert words in text
    assert ("the data differ" in text) == (data != "lsun")
    assert "64 images in 1,000 steps" not in text, "a time of another model"


def test_parameters_are_those_of_the_run(build):
    text = (build(params={"sample.steps": 20}) / "report.md").read_text()
    assert "| `sample.steps` | `20` |" in text
    assert "| `models.tiny.recipe.target` | `x0` |" in text
    assert "models.paper." not in text
    assert "runtime" not in text


def test_values_are_escaped_in_the_page_alone(build):
    folder = build()
    assert "2 cores of &lt;some&gt; CPU" in (folder / "index.html").read_text()
    assert "2 cores of <some> CPU" in (folder / "report.md").read_text()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_page_fits_a_phone_without_a_complaint_from_the_browser(build, tmp_path):
    page = html.escape((build() / "index.html").read_text())
    # In a frame, because a browser's window is at least 500 pixels wide.
    (tmp_path / "phone.html").write_text(
        f'<iframe style="width: 360px; height: 800px; border: 0" srcdoc="{page}"></iframe><p></p><script>'
        "onload = () => { const page = document.querySelector('iframe').contentDocument;"
        "const root = page.documentElement, missing = [...page.images].filter(image => !image.naturalWidth);"
        "document.querySelector('p').append(`${root.scrollWidth - root.clientWidth} ${missing.length}`); }</script>"
    )
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    options += f" --disable-component-update --disable-sync --enable-logging=stderr --user-data-dir={tmp_path}/profile"
    command = [BROWSER, *options.split(), "--dump-dom", (tmp_path / "phone.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "<p>0 0</p>" in done.stdout
    assert "CONSOLE" not in done.stderr
