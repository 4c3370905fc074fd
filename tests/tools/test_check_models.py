"""Every model of params.yaml can be trained, at the size that it is for, and others are refused in one line."""

import math
import subprocess
import sys

import pytest
from ruamel.yaml import YAML
from support import REPOSITORY, WriteParams

from ddpm.config import ConfigError
from stages.kit.params import read_params
from tools.check import main

MODELS = YAML(typ="safe").load(REPOSITORY / "params.yaml")["models"]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_accepted_at_its_size(name: str, write_params: WriteParams) -> None:
    size = MODELS[name]["image_size"] or 48
    write_params({"model": name, "extract.size": size})
    assert main() == "params.yaml is as all stages want it"
    shift = MODELS[name]["log_snr_shift"]
    if shift:
        assert shift == pytest.approx(2 * math.log(48 / size), abs=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "tiny_64"}, "models.tiny_64 is for images of 64 px: add -S extract.size=64"),
        ({"model": "latent_128", "extract.size": 64}, "is for images of 128 px: add -S extract.size=128"),
        ({"model": "latent", "models.latent.space": "pixels"}, "latents, and they alone, have an autoencoder"),
        ({"models.tiny.space": "latents"}, "latents, and they alone, have an autoencoder"),
        ({"model": "latent", "extract.size": 50}, "images of 50 px have no latents: use a multiple of 4"),
        ({"model": "latent", "extract.size": 52}, "images of 13 px can't be halved through 2 levels"),
        ({"model": "latent", "models.latent.network.head_channels": 36}, "head_channels = 36: attention has"),
        (
            {"model": "latent", "models.latent.network.conditional": True, "models.latent.recipe.label_dropout": 0.0},
            "recipe.label_dropout = 0: must be above 0",
        ),
        ({"extract.size": 64}, "attention at 6 px, but the levels of a 64 px image are"),
        ({"model": "latent", "sample.clip": True}, "latents, which aren't within"),
        ({"model": "latent", "sample.threshold": 0.9}, "latents, which aren't within"),
        ({"model": "latent", "models.latent.sampling.clip": True}, "latents, which aren't within"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict, message: str, write_params: WriteParams) -> None:
    write_params(changes)
    with pytest.raises(ConfigError, match=message) as error:
        main()
    assert "\n" not in str(error.value)


def test_a_size_is_refused_by_the_first_stage(write_params: WriteParams) -> None:
    """Before anything is downloaded."""
    write_params({"model": "tiny_64"})
    with pytest.raises(ConfigError, match=r"add -S extract\.size=64"):
        read_params().model()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "stages.fetch",
            "--published",
            "a",
            "--lmdb",
            "b",
            "--factors",
            "c",
            "--passed-over",
            "d",
        ],
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "fetch: error: params.yaml: models.tiny_64 is for images of 64 px: add -S extract.size=64\n"
