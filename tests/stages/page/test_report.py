import base64
import hashlib
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from stages.kit.params import read_params
from stages.page import stage as report
from stages.shared.formats import write_safetensors

TEMPLATES = Path(report.__file__).parent / "templates"
EVALUATION = ("kid", "precision_recall", "diversity", "colours", "factors", "noise_loss")
FIGURES = (
    "data",
    "samples",
    "forward",
    "reverse",
    "reverse_animated",
    "interpolation",
    "interpolation_real",
    "interpolation_animated",
    "best",
    "nearest",
    *EVALUATION,
)
MINUS = "\N{MINUS SIGN}"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def estimate(value, n=64):
    return {"value": value, "low": round(value - 0.05, 3), "high": round(value + 0.05, 3), "n": n}


def distances(median, n):
    return {"min": round(median - 0.05, 3), "median": median, "mean": median, "max": round(median + 0.05, 3), "n": n}


def placed(median, n):
    return {**distances(median, n), "low": round(median - 0.02, 3), "high": round(median + 0.02, 3)}


def measured(kid):
    channels = {"red": estimate(2.0), "green": estimate(-3.0), "blue": estimate(-0.0001)}
    return {
        "kid_alexnet": estimate(kid),
        "precision_alexnet": estimate(0.75),
        "recall_alexnet": estimate(0.5, 500),
        "diversity_lpips": estimate(0.25),
        "colour_drift": {"mean": channels, "std": channels, "saturated": channels},
    }


def factor(accuracy, distance):
    seen = {"distance": estimate(distance), "covered": 3}
    return {"classes": 4, "accuracy": estimate(accuracy, 500), "majority": 0.446, "samples": seen, "real": seen}


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
SETS = {"samples": 64, "held_out": 500, "left_out": 500}
DUPLICATES = {"duplicates_in_training": {"exact": 3, "near": 4}, "duplicates_held_out": {"exact": 1, "near": 2}}
MEAN = {"value": 0.1, "low": -0.02, "high": 0.3, "n": 8}
PATH = {
    "noise_norm": {"ends": 83.1, "middle": 58.8},
    "detail": {"ends": 0.1, "middle": 0.09},
    "lpips_step": {"mean": 0.1, "largest": 0.25, "n": 64},
    "end_distance": MEAN,
    "largest_over_mean": MEAN,
    "length_over_end_distance": MEAN,
    "nearest_training": {"ends": MEAN, "middle": MEAN, "midpoint_difference": MEAN},
}
REAL_PATH = {**PATH, "reconstruction": {"lpips": MEAN, "rmse": MEAN}}
METRICS = {
    "extract": {"train": SPLIT | DUPLICATES, "val": SPLIT, "near_rms": 8.0},
    "train": {
        "images": 4000,
        "steps": 2500,
        "parameters": 3456789,
        "loss": {"last_tenth": 0.0876, "n": 250},
    },
    "interpolate": {
        "noise": {"lerp_ancestral": PATH, "slerp_ddim": PATH},
        "real": {"ddim": REAL_PATH, "encode_250": REAL_PATH},
    },
    "rank": {
        "lpips": {"net": "alex", "input_size": 48, "flips": True},
        "best": {**distances(0.2, 6), "flagged": 0},
        "best_unseen": distances(0.3, 6),
        "samples": placed(0.3, 64),
        "held_out": placed(0.25, 500),
        "left_out": placed(0.25, 500),
        "real_pairs": placed(0.6, 1000),
        "percentile": placed(0.8, 64),
        "ratio": {name: placed(0.9, n) for name, n in SETS.items()},
        "copies": {"rate": 0.01, "limit": 0.06, **{name: estimate(0, n) for name, n in SETS.items()}},
    },
    "evaluate": {
        "samples": measured(0.5),
        "real": measured(0.01),
        "reference_images": 500,
        "frechet": {
            "fd_alexnet": {"refused": "64 samples and 4,000 real images; the covariance of 1,152 features"},
            "fid_inception": {"refused": "64 samples and 4,000 real images; the covariance of 2,048 features"},
        },
        "factors": {"time": factor(0.99, 0.04), "spire": factor(0.7, 0.04)},
    },
    "likelihood": {
        "bits_per_dim": {name: estimate(2.5, 500) for name in ("total", "prior", "steps", "decoder")},
        "simple_loss": estimate(0.0477, 500),
    },
}
WEIGHTS = b"weights"


def drawn(sampler, steps, kid, **changes):
    """A line of the benchmark."""
    difference = {**estimate(kid - 0.006, 500), "low": round(kid - 0.0123, 4)}
    row = {"sampler": sampler, "steps": steps, "spacing": "trailing", "precision": "auto", "evaluations": steps}
    row |= {"kid": estimate(kid, 500), "kid_difference": difference, "lpips": None}
    return row | {"seconds": {"median": steps / 10, "lowest": 12.1, "highest": 12.6, "n": 3}} | changes


QUALITY = {
    "model": "tiny",
    "weights": hashlib.sha256(WEIGHTS).hexdigest(),
    "precision": "bfloat16",
    "machine": "2 cores of <some> CPU",
    "torch": "2.14.1",
    "timed_images": 64,
    "held_out_images": 500,
    "pick": {"sampler": "unipc", "steps": 10, "spacing": "logsnr", "precision": "auto"},
    "less_float32": {"kid_difference": estimate(0.0004, 500), "lpips": estimate(0.0021, 128)},
    "rows": [
        drawn("ancestral", 1000, 0.006, kid_difference=None),
        drawn("ancestral", 50, 0.03),
        drawn("unipc", 10, 0.007, spacing="logsnr", lpips=estimate(0.0345, 128)),
        drawn("unipc", 10, 0.007, spacing="logsnr", precision="float32"),
    ],
}


def noise(*shape):
    return np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 8, 8, 3), dtype=np.uint8)


def write_arrays(folder):
    """Images, and what was found about three samples; the second is the nearest."""
    for name, count in (("train", 5), ("val", 4), ("samples", 3)):
        np.save(folder / f"{name}.npy", noise(count))
    np.save(folder / "interpolation.npy", noise(12, 8, 9))
    write_safetensors(
        folder / "reverse.safetensors", {"frames": torch.from_numpy(noise(2, 4, 3))}, {"timesteps": [999, 500]}
    )
    numbers = {"percentile": 0.4, "p_value": 0.5, "copy_distance": 0.6, "flagged": 0, "held_out_distance": 0.33}
    rows = {"neighbour": 4, "original": 2, "held_out_neighbour": 3}
    sides = {"mirrored": 1, "original_mirrored": 0, "held_out_mirrored": 0}
    table = {"rank": [1, 2, 3], "sample": [1, 0, 2], "distance": [0.21, 0.31, 0.41], **numbers, **rows, **sides}
    pd.DataFrame(table).to_csv(folder / "neighbours.csv", index=False)


@pytest.fixture
def build(write_params, tmp_path):
    """Write the stage's inputs, with `changes` to metrics and to parameters, run it and return its folder."""

    def run(metrics=None, params=None, quality=None):
        write_params(params or {})
        folder = tmp_path / "reports"
        for name in ("metrics", "figures"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for stage, values in {**METRICS, **(metrics or {})}.items():
            (folder / "metrics" / f"{stage}.json").write_text(json.dumps(values))
        (folder / "loss.csv").write_text("epoch,step,loss,learning_rate\n5,1250,0.2,0.001\n10,2500,0.1,0.0001\n")
        (folder / "quality.json").write_text(json.dumps({**QUALITY, **(quality or {})}))
        (folder / "model").mkdir(exist_ok=True)
        (folder / "model/ema.safetensors").write_bytes(WEIGHTS)
        write_arrays(folder)
        for index, name in enumerate(FIGURES):
            pixels = np.random.default_rng(index).integers(0, 256, (40 + index, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "figures" / f"{name}.png")
        report.main(
            TEMPLATES,
            *(folder / "metrics" / f"{stage}.json" for stage in METRICS),
            folder / "loss.csv",
            folder / "model",
            *(folder / f"{name}.npy" for name in ("train", "val", "samples")),
            folder / "reverse.safetensors",
            folder / "interpolation.npy",
            folder / "neighbours.csv",
            folder / "quality.json",
            *(folder / "figures" / f"{name}.png" for name in FIGURES),
            *(folder / name for name in ("index.html", "report.md", "metrics.json")),
            *(folder / "figures" / name for name in ("loss.png", "quality_time.png")),
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
        if tag not in ("meta", "link", "img", "input", "br"):
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
    assert set(re.findall(r"url\((.{5})", text)) == {"data:"}
    assert "@import" not in text


def pixels(image):
    return image.convert("RGB").tobytes()


def test_page_holds_the_figures_as_given(build):
    folder = build()
    images = Tags((folder / "index.html").read_text()).all("img")
    assert {image["src"].partition(",")[0] for image in images} == {"data:image/webp;base64"}
    held = [Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))) for image in images]
    given = [Image.open(path) for path in (folder / "figures").iterdir()]
    assert sorted(pixels(image) for image in held) == sorted(map(pixels, given))
    assert all(len(image["alt"]) > 20 for image in images)
    sizes = {Image.open(path).size for path in (folder / "figures").iterdir()}
    assert {(int(image["width"]), int(image["height"])) for image in images} == sizes


def test_markdown_links_to_the_figures(build):
    folder = build()
    text = (folder / "report.md").read_text()
    links = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert sorted(links) == sorted(f"figures/{name}.png" for name in (*FIGURES, "loss", "quality_time"))
    assert all((folder / link).is_file() for link in links)
    assert "\n\n\n" not in text


@pytest.mark.parametrize("name", read_params().mapping("sources"))
def test_each_source_has_its_words(build, name):
    text = (build(params={"data": name}) / "report.md").read_text()
    kind = read_params().mapping("sources", name)["kind"]
    drawn, here = "drawn by this repository", "images from this machine"
    assert {"generate": drawn, "lsun": "photographs from LSUN", "path": here, "folder": here}[kind] in text


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
    wanted += ["58.8", "64 samples and 4,000 real images", "+2.0 (+2.0)", "12.1\N{EN DASH}12.6"]
    wanted += ["unipc, 10 steps, logsnr, float32", f"+0.0010 [{MINUS}0.0053, 0.0510]"]
    for name in ("index.html", "report.md"):
        text = html.unescape((folder / name).read_text()).replace("\N{NO-BREAK SPACE}", " ")
        assert [words for words in wanted if words not in text] == []
        assert not re.search(rf"{MINUS}0\.0\b", text.replace(f"{MINUS}0.040", "")), "a negative zero"


def test_words_follow_the_numbers(build):
    text = (build() / "report.md").read_text()
    assert "no nearer to the training images than new real images" in text
    assert "wholly above 0" in text
    near = {**METRICS["rank"], "samples": placed(0.1, 64), "best": {**distances(0.06, 6), "flagged": 0}}
    alike = {**METRICS["evaluate"], "samples": measured(0.04)}
    text = (build({"rank": near, "evaluate": alike}) / "report.md").read_text()
    assert "lie nearer to the training images than new real images" in text
    assert "nearer than any held-out image" in text
    assert "interval holds 0" in text


def test_evaluation_is_told_as_it_is(build):
    text = (build() / "report.md").read_text()
    assert "There is no FID: 64 samples and 4,000 real images; the covariance of 2,048 features. Below that" in text
    assert "nine intervals 6 leave 0 out" in text
    assert "poor at the form of the roof, where 30 of 100" in text
    assert "distances lies above 0" in text
    assert "more than the 8 bits" not in text
    evaluate = {key: value for key, value in METRICS["evaluate"].items() if key != "factors"}
    evaluate["frechet"] = {"fid_inception": {**estimate(12.5, 5000), "training_images": 50000}}
    bits = {name: estimate(9, 500) for name in METRICS["likelihood"]["bits_per_dim"]}
    likelihood = {**METRICS["likelihood"], "bits_per_dim": bits}
    text = (build({"evaluate": evaluate, "likelihood": likelihood}) / "report.md").read_text()
    assert re.search(r"To all 50,000 .* FID, .*, is 12.500 \[12.450,\s12.550\], n = 5,000 samples", text)
    assert not re.search("There is no FID|time of day|classifier", text)
    assert "more than the 8 bits" in text


def test_copies_are_told(build):
    assert "0 of 64 samples are flagged" in (build() / "report.md").read_text()
    rank = METRICS["rank"]
    copied = {**rank, "best": {**rank["best"], "flagged": 2}, "best_unseen": {"n": 0}}
    copied["copies"] = {**rank["copies"], "samples": estimate(1.0)}
    text = (build({"rank": copied}) / "report.md").read_text()
    assert "64 of 64 samples are flagged" in text
    assert "2 of the best 6 are among the flagged" in text
    assert "no selection without copies" in text
    near, far = ({**rank, "best_unseen": distances(median, 6)} for median in (0.2, 0.3))
    assert "0.150 to 0.250, speaks for a sample" in (build({"rank": near}) / "report.md").read_text()
    assert "Not all of them are good" in (build({"rank": far}) / "report.md").read_text()
    few = {**rank, "copies": {**rank["copies"], "limit": 0.0}}
    assert "too few to flag anything" in (build({"rank": few}) / "report.md").read_text()


def test_resizing_for_lpips_is_told(build):
    resized = {**METRICS["rank"], "lpips": {"net": "alex", "input_size": 64, "flips": False}}
    text = (build({"rank": resized}) / "report.md").read_text()
    assert "of images resized to 64" in text
    assert "counts mirrored" not in text


def test_the_benchmark_of_sampling_is_told_as_it_is(build):
    text = (build() / "report.md").read_text()
    assert "are 10, by unipc, 10 steps, logsnr" in text
    assert "with the weights of this run" in text
    assert "64 images take 1.00 s instead of 100.0 s: 100 times as fast" in text
    assert "drawn so" not in text
    own = {f"sample.{key}": value for key, value in QUALITY["pick"].items() if key != "precision"}
    assert "The samples of this page are drawn so." in (build(params=own) / "report.md").read_text()
    untimed = [{**row, "seconds": None} for row in QUALITY["rows"]]
    first = {**QUALITY["pick"], "sampler": "ancestral", "steps": 1000, "spacing": "trailing"}
    others = {"weights": "", "machine": None, "pick": first, "less_float32": None, "rows": untimed}
    text = (build(quality=others) / "report.md").read_text()
    assert "weights of model tiny that are not this run" in text
    assert "No other sampler passes with fewer evaluations." in text
    assert not re.search("times as fast|PyTorch|float32 instead", text)


def test_what_became_of_the_data_is_told(build):
    text = (build() / "report.md").read_text()
    assert "3 repeat an earlier one pixel for pixel and 4 nearly so; 1 and 2 are held-out images as well" in text
    assert "They were kept." in text
    assert "centre crops, resized" in text
    split = {**SPLIT, "images_of": {"church": 3000, "tower": 1000}}
    none = {name: {"exact": 0, "near": 0} for name in DUPLICATES}
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


def in_browser(folder, tmp_path, width, script):
    """What SCRIPT, of the names `page` and `view` (document and window), returns in a browser `width` pixels wide."""
    page = html.escape((folder / "index.html").read_text())
    # In a frame, because a browser's window is at least 500 pixels wide.
    (tmp_path / "frame.html").write_text(
        f'<iframe style="width: {width}px; height: 800px; border: 0" srcdoc="{page}"></iframe><pre></pre><script>'
        "onload = () => { const view = document.querySelector('iframe').contentWindow, page = view.document;"
        f"document.querySelector('pre').append(JSON.stringify((() => {{ {script} }})())); }}</script>"
    )
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    options += f" --disable-component-update --disable-sync --enable-logging=stderr --user-data-dir={tmp_path}/profile"
    command = [BROWSER, *options.split(), "--dump-dom", (tmp_path / "frame.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    return json.loads(html.unescape(done.stdout.rpartition("<pre>")[2].partition("</pre>")[0]))


browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")


@browser
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_page_fits_without_a_complaint_from_the_browser(build, tmp_path, width):
    script = """const root = page.documentElement, missing = [...page.images].filter(image => !image.naturalWidth);
        return [root.scrollWidth - root.clientWidth, missing.length];"""
    assert in_browser(build(), tmp_path, width, script) == [0, 0]


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
    # Tiles are 96 pixels; the second is the second of two pairs' first method, then x_t of the second sample.
    moved = ["0px -192px", "0", "-192px -192px", "0.25", "-192px -288px", "0.25"]
    assert found == [*moved, "0px -192px", "t = 999", "-192px -192px", "the sample"]


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
    assert opened == [True, "Sample 1, number 2 by distance", "0.310"]
    assert following == [True, "Sample 2, number 1 by distance", "0.210"]
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
