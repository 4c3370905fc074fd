"""A GAN through the same graph: killed, continued, told on the page; and what its code may make run again."""

import json
import time
from pathlib import Path

import psutil
import pytest
from support import little_options

from benchmarks._clone import Clone

pytestmark = pytest.mark.slow

GAN = little_options(
    "model=gan",
    "models.gan.network.channels=[16,8,4,4,4]",
    "models.gan.network.latent_channels=8",
    "models.gan.recipe.batch_images=8",
    "runtime.save_every_seconds=0",
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, little: Clone) -> Clone:
    """A clone in which the default profile has run once on little data, for the tests of this module in their order."""
    clone = little.copy(tmp_path_factory.mktemp("gan") / "clone")
    clone.commit("run on little data")
    return clone


def test_code_of_a_gan_runs_no_stage_of_a_diffusion_model(clone: Clone) -> None:
    for name in ("ddpm/gan/networks.py", "ddpm/gan/trainer.py", "stages/gan/stage.py"):
        file = clone.folder / name
        file.write_bytes(file.read_bytes() + b"# A comment.\n")
    assert clone.ran("repro") == ["gan"]  # which does nothing for it
    clone.git("checkout", "ddpm", "stages")


def kill_training(clone: Clone) -> None:
    """Start the GAN's experiment and kill its trainer when that has saved a state."""
    process = clone.start("exp", "run", *GAN)
    end = time.monotonic() + 300
    while not list(clone.folder.glob(".cache/gan/*/state.pt")):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    trainers = [each for each in psutil.Process(process.pid).children(recursive=True) if "stages.gan" in each.cmdline()]
    for each in trainers:
        each.kill()
    assert trainers
    assert process.wait() != 0


def test_a_gan_is_killed_continued_and_told_on_the_page(clone: Clone) -> None:
    kill_training(clone)
    assert not list(clone.folder.glob("data/gan/*.safetensors"))
    said = clone.dvc("exp", "run", *GAN)
    assert "gan: continues at step" in said
    assert "likelihood: nothing to do: a GAN gives no image a probability" in said
    assert not list(clone.folder.glob("data/model/*.safetensors"))
    assert not list(clone.folder.glob("data/figures/processes/*.png"))
    assert {path.name for path in (clone.folder / "data" / "gan").iterdir()} == {
        "raw.safetensors", "ema_0.99.safetensors", "ema_0.999.safetensors",
    }  # fmt: skip
    metrics = json.loads((clone.folder / "reports" / "metrics.json").read_text())
    assert metrics.keys() == {"kid", "kid_low", "kid_high", "precision", "recall", "lpips6"}
    assert "generative adversarial network" in (clone.folder / "reports" / "index.html").read_text()
    assert clone.ran("repro") == []
    clone.dvc("plots", "show")
    assert max(map(len, clone.dvc("metrics", "diff").splitlines())) <= 120


def test_back_to_the_diffusion_model_all_comes_from_the_cache(clone: Clone) -> None:
    ran = clone.ran("exp", "run", *little_options())
    assert set(ran) <= {"train", "gan", "page"}  # those with outputs that Git keeps, which the run cache leaves out
    assert list(Path(clone.folder / "data" / "model").glob("*.safetensors"))
