"""Other images than drawn churches."""

from pathlib import Path

import pandas as pd
import pytest
from lsun_server import Server, lsun_zip
from support import PHOTOS, STAGES, smoke_options

from benchmarks._clone import Clone
from stages.fetch.stage import GenerateConfig, generate


@pytest.fixture
def clone(smoke: Clone, tmp_path: Path) -> Clone:
    return smoke.copy(tmp_path / "clone")


@pytest.mark.slow
def test_photographs_on_this_machine_become_arrays(clone: Clone, photos: Path) -> None:
    # As the README writes it: the braces need quotes of their own.
    sources = [f"sources.path.{split}='{photos}/{{category}}_{split}_lmdb'" for split in ("train", "val")]
    assert clone.ran("exp", "run", "extract", *smoke_options("data=path", *sources)) == ["fetch", "extract"]


@pytest.mark.slow
def test_classes_from_lsuns_server_go_through_every_stage(clone: Clone, server: Server, tmp_path: Path) -> None:
    """By a model that is told them: drawn images and photographs, if there are some, under names that are new."""
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
    options = smoke_options(*source, "epochs=1", "models.smoke.network.conditional=true")
    assert sorted(clone.ran("exp", "run", *options)) == sorted(set(STAGES) - {"weights"})
    assert sorted(path for path, _ in server.asked) == sorted(server.files)
    assert set(pd.read_csv(clone.folder / "data" / "samples" / "samples.csv")["category"]) == {"castle", "chapel"}
