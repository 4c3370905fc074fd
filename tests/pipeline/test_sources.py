"""Other images than drawn churches, through every stage."""

from pathlib import Path

import pytest
from lsun_server import Server, lsun_zip
from support import STAGES, smoke_options

from benchmarks._clone import Clone
from stages.fetch.stage import GenerateConfig, generate


@pytest.fixture
def clone(smoke: Clone, tmp_path: Path) -> Clone:
    return smoke.copy(tmp_path / "clone")


def run(clone: Clone, *changes: str) -> None:
    assert sorted(clone.ran("exp", "run", *smoke_options(*changes))) == sorted(set(STAGES) - {"weights"})


@pytest.mark.slow
@pytest.mark.xdist_group("photos")
def test_real_photographs_go_through_every_stage(clone: Clone, photos: Path) -> None:
    # As the README writes it: the braces need quotes of their own.
    sources = [f"sources.path.{split}='{photos}/{{category}}_{split}_lmdb'" for split in ("train", "val")]
    run(clone, "data=path", "epochs=1", *sources)


@pytest.mark.slow
@pytest.mark.xdist_group("classes")
def test_classes_from_lsuns_server_go_through_every_stage(clone: Clone, server: Server, tmp_path: Path) -> None:
    """Drawn images under names that no stage has seen."""
    for seed, category in enumerate(("castle", "chapel"), 1):
        drawn = GenerateConfig(kind="generate", categories=("church",), train_images=48, val_images=24, seed=seed)
        for split in ("train", "val"):
            name = f"{category}_{split}_lmdb"
            generate(drawn, "church", split, tmp_path / name / "data.mdb", None)
            data = (tmp_path / name / "data.mdb").read_bytes()
            server.files[f"/{name}.zip"] = lsun_zip(tmp_path / f"{name}.zip", [f"{name}/data.mdb"], data).read_bytes()
    run(clone, "data=lsun", f"sources.lsun.urls=[{server.url}]", "sources.lsun.categories=[castle,chapel]")
    assert sorted(path for path, _ in server.asked) == sorted(server.files)
