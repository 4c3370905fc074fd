"""A model of latents at another size than the default's, from a clone through to the page."""

import json
from pathlib import Path

import numpy as np
import pytest
from support import STAGES, smoke_options

from benchmarks._clone import Clone

pytestmark = pytest.mark.slow

AUTOENCODER = "models.latent.autoencoder"
LATENT = (
    "model=latent",
    "extract.size=64",
    "models.latent.network.channels=16",
    "models.latent.recipe.batch_images=16",
    f"{AUTOENCODER}.network.channels=8",
    f"{AUTOENCODER}.recipe.epochs=2",
    f"{AUTOENCODER}.recipe.warmup_steps=2",
    "sample.steps=2",
)


def test_a_model_of_latents_of_64_pixels_goes_through_to_the_page(tmp_path: Path, smoke: Clone) -> None:
    """Of a clone in which a model of pixels has run, for which there are no latents."""
    clone = smoke.copy(tmp_path / "clone")
    assert not list((clone.folder / "data" / "latents").glob("*.npy"))
    assert set(clone.ran("exp", "run", *smoke_options(*LATENT))) == set(STAGES) - {"fetch", "weights"}
    page = (clone.folder / "reports" / "page.md").read_text()
    assert "The network learns latents" in page
    assert (clone.folder / "reports" / "figures" / "reconstructions.webp").exists()
    assert np.load(clone.folder / "data" / "samples" / "samples.npy").shape == (64, 64, 64, 3)
    found = json.loads((clone.folder / "reports" / "details" / "evaluate.json").read_text())["autoencoder"]
    assert found["kid"]["decoded"]["value"] > found["kid"]["real"]["value"]
    assert clone.ran("repro") == []
