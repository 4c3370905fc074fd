"""The page of a GAN: what it has no number for is said in a sentence, and nothing stands in for it."""

import json
import re

import pytest
from page_inputs import DETAILS, REAL_PATH

APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"
SIGNS = {
    "critic_loss": 0.51, "generator_loss": 1.23, "margin": 0.6, "wins": 0.72, "steep_real": 0.2, "steep_fake": 0.3,
    "out_of_range": 0.01,
}  # fmt: skip
PATH = {key: value for key, value in REAL_PATH.items() if key != "reconstruction"}
GAN = {
    "train": {"absent": "models.gan is a GAN"},
    "gan": {
        "images": 4000, "steps": 5000, "parameters": 1110000, "critic_parameters": 1090000,
        "last_tenth": {**SIGNS, "n": 500},
    },
    "interpolate": {"noise": {"lerp": PATH, "slerp": PATH}, "real": {"absent": "a GAN has no encoder"}},
    "likelihood": {"absent": "a GAN gives no image a probability"},
}  # fmt: skip


@pytest.fixture
def reports(build, monkeypatch):
    """The folder of the page of a GAN, whose stages have left folders without pictures."""
    import page_inputs

    arrays, figures = page_inputs.write_arrays, page_inputs.write_figures

    def without_reverse(folder):
        arrays(folder)
        for file in (folder / "samples" / "reverse").iterdir():
            file.unlink()

    def without_diffusion(folder):
        figures(folder)
        for name in ("processes.png", "interpolation_real.png", "noise_loss.svg"):
            (folder / name).unlink()
            (folder / name.partition(".")[0]).mkdir()
        columns = ["epoch", "step", *SIGNS, "learning_rate", "gamma"]
        row = ["10", "2500", *map(str, SIGNS.values()), "0.0001", "1"]
        (folder.parent / "gan_loss.csv").write_text(",".join(columns) + "\n" + ",".join(row) + "\n")
        (folder.parent / "loss.csv").write_text("epoch,step,loss,learning_rate\n")

    monkeypatch.setattr(page_inputs, "write_arrays", without_reverse)
    monkeypatch.setattr(page_inputs, "write_figures", without_diffusion)
    return build(details=GAN, params={"model": "gan"})


def test_what_a_gan_has_no_number_for_is_said(reports):
    for name in ("index.html", "page.md"):
        text = (reports / name).read_text()
        for said in (
            "A generative adversarial network, from data to samples",
            "A generator with 1,110,000 parameters learned to make images, against a critic with 1,090,000",
            "A GAN has neither a forward nor a reverse process",
            f"the critic{APOSTROPHE}s loss is 0.510 without its penalties, the generator{APOSTROPHE}s 1.230",
            "the critic is right about 72 of 100 pairs",
            "There are no paths between real images: a GAN has no encoder.",
            "neither a loss by noise level nor a number of bits per dimension: a GAN gives no image a probability.",
            "The samples of this page come from a GAN, which needs one evaluation.",
            "in 64 dimensions Gaussian noise has a length close to √64 = 8.0",
        ):
            assert said in text, said
        assert not re.search(
            r"U-Net with|Algorithm 1|Figure (1|2|3a|4b|6c)\.|dvc repro likelihood|bits per dimension \(n", text
        )


def test_only_figures_that_there_are_lie_beside_the_page(reports):
    there = {path.stem for path in (reports / "figures").iterdir()}
    assert there >= {"loss", "samples", "interpolation", "best", "paths_sheet"}
    assert not there & {"processes", "interpolation_real", "noise_loss", "reverse_sheet"}
    text = (reports / "index.html").read_text()
    assert set(re.findall(r"figures/(\w+)\.\w+", text)) == there


def test_the_metrics_of_a_gan_have_no_loss(reports):
    metrics = json.loads((reports / "metrics.json").read_text())
    assert metrics.keys() == {"kid", "kid_low", "kid_high", "precision", "recall", "lpips6", "copies"}
    assert metrics["kid"] == DETAILS["evaluate"]["samples"]["kid_alexnet"]["value"]
