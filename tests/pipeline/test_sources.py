"""Other images than drawn churches, and another model of them, from a clone through to the page."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lsun_server import Server, lsun_zip
from support import PHOTOS, STAGES, little_options

from benchmarks._clone import Clone
from stages.fetch.stage import GenerateConfig, generate

AUTOENCODER = "models.latent.autoencoder"
LATENT = (
    "model=latent",
    "extract.size=64",
    "models.latent.network.channels=16",
    "models.latent.network.conditional=true",
    "models.latent.recipe.batch_images=16",
    f"{AUTOENCODER}.network.channels=8",
    f"{AUTOENCODER}.recipe.epochs=2",
    f"{AUTOENCODER}.recipe.warmup_steps=2",
    "sample.steps=2",
)


@pytest.fixture
def clone(little: Clone, tmp_path: Path) -> Clone:
    return little.copy(tmp_path / "clone")


@pytest.mark.slow
def test_photographs_on_this_machine_become_arrays(clone: Clone, photos: Path) -> None:
    # As the README writes it: the braces need quotes of their own.
    sources = [f"sources.path.{split}='{photos}/{{category}}_{split}_lmdb'" for split in ("train", "val")]
    assert clone.ran("exp", "run", "extract", *little_options("data=path", *sources)) == ["fetch", "extract"]


@pytest.mark.slow
def test_latents_of_classes_from_lsuns_server_go_through_every_stage(
    clone: Clone, server: Server, tmp_path: Path
) -> None:
    """At 64 px, by a model that is told the class, of which there are new names: drawn ones and, if any, photographs.

    In a clone in which a model of pixels has run, for which there are no latents.
    """
    assert not list((clone.folder / "data" / "latents").glob("*.npy"))
    for seed, category in enumerate(("castle", "chapel")):
        drawn = GenerateConfig(kind="generate", categories=("church",), train_images=48, val_images=24, seed=seed)
        for split in ("train", "val"):
            name = f"{category}_{split}_lmdb"
            file = PHOTOS / f"photos_{split}_lmdb" / "data.mdb"
            if category == "castle" or not file.exists():
                file = tmp_path / name / "data.mdb"
                generate(drawn, "church", split, file, None)
            archive = lsun_zip(tmp_path / f"{name}.zip", [f"{name}/data.mdb"], file.read_bytes())
            server.files[f"/{name}.zip"] = archive.read_bytes()
    source = ("data=lsun", f"sources.lsun.urls=[{server.url}]", "sources.lsun.categories=[castle,chapel]")
    assert sorted(clone.ran("exp", "run", *little_options(*source, *LATENT))) == sorted(set(STAGES) - {"weights"})
    assert sorted(path for path, _ in server.asked) == sorted(server.files)
    assert set(pd.read_csv(clone.folder / "data" / "samples" / "samples.csv")["category"]) == {"castle", "chapel"}
    assert np.load(clone.folder / "data" / "samples" / "samples.npy").shape == (64, 64, 64, 3)
    assert "The network learns latents" in (clone.folder / "reports" / "page.md").read_text()
    assert (clone.folder / "reports" / "figures" / "reconstructions.webp").exists()
    found = json.loads((clone.folder / "reports" / "details" / "evaluate.json").read_text())["autoencoder"]
    assert found["kid"]["decoded"]["value"] > found["kid"]["real"]["value"]
    assert clone.ran("repro") == []
