"""Weights are sampled from as they say, or as params.yaml says of the model that they name: never as another model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models import NETWORK
from support import WriteParams

from ddpm.config import ConfigError
from stages.kit.params import read_params
from stages.shared.files.formats import write_safetensors
from stages.shared.models.diffusion import own_sampling, weights_file

SMOKE = {f"models.smoke.network.{name}": value for name, value in NETWORK.items()}
WHOLE = {"sampler": "ddim", "steps": 7, "spacing": "leading", "clip": False, "variance": "large"}

Write = Callable[..., Path]


@pytest.fixture
def file(tmp_path: Path, write_params: WriteParams) -> Write:
    """Write what `train` says of weights that it has made as the model smoke, but for some changes; give the file."""
    write_params({"model": "report", **SMOKE})

    def write(name: str = "ema_0.9.safetensors", **changes: Any) -> Path:
        settings = {"network": NETWORK, "recipe": {"target": "v"}, "model": "smoke", "ema_decay": 0.9, **changes}
        write_safetensors(tmp_path / "model" / name, {}, settings)
        return tmp_path / "model" / name

    return write


def test_the_model_that_a_file_names_not_that_of_params(file: Write) -> None:
    own = own_sampling(file(), read_params())
    assert (own.sampler, own.steps, own.clip, own.ema_decay) == ("ddim", 10, True, 0.99)
    file("ema_0.99.safetensors")
    assert weights_file(Path("model"), read_params()) == Path("model/ema_0.99.safetensors")


def test_what_a_file_says_itself_comes_first(file: Write) -> None:
    own = own_sampling(file(sampling={**WHOLE, "ema_decay": 0.5}, model="unknown"), read_params())
    assert (own.steps, own.spacing, own.variance, own.ema_decay) == (7, "leading", "large", 0.5)


@pytest.mark.parametrize(
    "changes",
    [{"model": "gone"}, {"model": None}, {"recipe": {"target": "x0"}}, {"network": {**NETWORK, "groups": 2}}],
    ids=["another params.yaml", "older file", "another target", "another network"],
)
def test_a_file_of_which_nothing_says_it_is_one_line(file: Write, changes: dict[str, Any]) -> None:
    path = file(**changes)
    with pytest.raises(ConfigError, match=r"doesn't say how it is sampled from, .* python -m tools\.export") as error:
        own_sampling(path, read_params())
    assert "\n" not in str(error.value)
    own = own_sampling(path, read_params(), WHOLE)
    assert (own.steps, own.ema_decay) == (7, 0.9)
    with pytest.raises(ConfigError, match=r"sampling\.steps: missing"):
        own_sampling(path, read_params(), {name: value for name, value in WHOLE.items() if name != "steps"})


def test_an_average_that_is_not_there_is_named(file: Write) -> None:
    file("raw.safetensors")
    message = r"models\.smoke\.sampling\.ema_decay = 0\.99: model has raw\.safetensors; 0 is"
    with pytest.raises(ConfigError, match=message):
        weights_file(Path("model"), read_params())
