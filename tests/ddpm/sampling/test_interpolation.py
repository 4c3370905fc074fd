"""Paths between noises, inversion, and the stage `interpolate`, by hand and in the pipeline."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from drawn import PREPROCESSING, churches, write_images
from hypothesis import given
from hypothesis import strategies as st
from models import write_model
from support import WriteParams
from test_samplers import SCHEDULE, gaussian
from torch import Tensor
from trainers import outputs

from ddpm.config import ConfigError, parse
from ddpm.evaluation.path_metrics import detail, path_metrics, rms_error
from ddpm.evaluation.perceptual import Metric, load_lpips
from ddpm.images import to_model_range
from ddpm.sampling.interpolation import PATHS, invert, lerp, lerp_vp, slerp
from ddpm.sampling.predictor import PredictorConfig
from ddpm.sampling.samplers import ImageNoise, SamplerConfig, run_sampler
from ddpm.sampling.timesteps import spaced_timesteps
from stages.interpolate.methods import InterpolateConfig, along, between_images, decoded
from stages.interpolate.stage import main
from stages.kit.command import run
from stages.kit.params import read_params
from stages.shared.files.formats import write_safetensors
from stages.shared.models.diffusion import load_model, sampling

CPU = torch.device("cpu")
METHODS = "[lerp_ancestral, lerp_ddim, slerp_ancestral, slerp_ddim]"
DDIM = SamplerConfig(sampler="ddim", steps=50)
SMALL = {
    "model": "smoke",
    "sample.precision": "float32",
    "interpolate.pairs": 3,
    "interpolate.shown": 1,
    "interpolate.frames": 3,
    "interpolate.steps": 4,
    "models.smoke.sampling.steps": 4,
    "runtime.device": "cpu",
    "runtime.threads": 1,
}


def noises(count: int, seed: int = 0) -> Tensor:
    return ImageNoise(seed, "test", range(count), (3, 48, 48), CPU)()


@pytest.mark.parametrize("path", PATHS)
@given(seed=st.integers(0, 2**32), frames=st.integers(2, 9))
def test_paths_start_and_end_at_their_ends(path: str, seed: int, frames: int) -> None:
    a, b = noises(2, seed)
    found = PATHS[path](a, b, torch.linspace(0, 1, frames))
    assert found.shape == (frames, *a.shape)
    assert torch.allclose(found[0], a, atol=1e-6)
    assert torch.allclose(found[-1], b, atol=1e-6)


@given(seed=st.integers(0, 2**32), weight=st.floats(0, 1))
def test_lerp_leaves_the_shell_of_noise_and_the_others_stay_on_it(seed: int, weight: float) -> None:
    """Noise of 48 x 48 x 3 numbers has norm 83.1 +- 0.7; the middle of a straight line has 83.1 / sqrt(2) = 58.8."""
    a, b = noises(2, seed)
    w, shell = torch.tensor([weight]), math.sqrt(a.numel())
    straight = shell * math.sqrt((1 - weight) ** 2 + weight**2)
    assert float(lerp(a, b, w).norm()) == pytest.approx(straight, abs=4)
    assert float(lerp_vp(a, b, w).norm()) == pytest.approx(shell, abs=4)
    assert float(slerp(a, b, w).norm()) == pytest.approx(shell, abs=4)


def test_slerp_between_parallel_noises_is_the_line() -> None:
    a = noises(1)[0]
    w = torch.linspace(0, 1, 5)
    assert torch.allclose(slerp(a, 2 * a, w), lerp(a, 2 * a, w))


def test_inversion_comes_to_the_image_the_nearer_the_more_iterations() -> None:
    """Of Gaussian data, whose every step is a contraction."""
    x0 = 0.4 + 0.3 * noises(2).double()
    timesteps = spaced_timesteps(SCHEDULE, DDIM.steps, DDIM.spacing)
    errors = []
    for iterations in (1, 2, 3, 30):
        xt = invert(gaussian, x0, SCHEDULE, timesteps, iterations)
        errors.append(float((run_sampler(DDIM, gaussian, SCHEDULE, xt, torch.Tensor) - x0).abs().max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-9


@pytest.fixture
def folder(tmp_path: Path, write_params: WriteParams) -> Path:
    """With a small model, images to interpolate between and more to compare with."""
    write_params(SMALL)
    write_model(tmp_path / "model", [])
    write_images(tmp_path)
    np.save(tmp_path / "val.npy", churches()[40:])
    rows = pd.DataFrame({"row": range(8), "preprocessing": PREPROCESSING.name})
    rows.to_csv(tmp_path / "val.csv", index=False)
    return tmp_path


def test_inversion_of_a_network(folder: Path) -> None:
    model = load_model(Path("model"), read_params(), CPU, "float32")
    predict = model.predictor(PredictorConfig(clip=False))
    x0, how = to_model_range(churches()[:2]), SamplerConfig(sampler="ddim", steps=20)
    timesteps = spaced_timesteps(model.schedule, how.steps, how.spacing)
    xt = invert(predict, x0, model.schedule, timesteps, 15)
    assert torch.allclose(run_sampler(how, predict, model.schedule, xt, torch.Tensor), x0, atol=1e-3)


def test_frames_of_one_noise_differ_by_fresh_noise_alone(folder: Path) -> None:
    params = read_params()
    model = load_model(Path("model"), params, CPU, "float32")
    still = along(slerp, noises(2).repeat_interleave(2, dim=0), 3)  # from each of two noises to itself
    how = sampling(model.own, "interpolate", sampler="ancestral", steps=4)
    shared, fresh = (decoded(model, how, still, 0, "", fresh=fresh).images.astype(int) for fresh in (False, True))
    assert shared.shape == (2, 3, 48, 48, 3)
    assert np.abs(shared - shared[:, :1]).max() <= 1
    assert np.abs(fresh[:, 1:] - fresh[:, :-1]).mean(axis=(2, 3, 4)).min() > 1
    assert np.abs(shared[0] - shared[1]).mean() > 1


def test_real_images_get_the_noise_of_their_t(folder: Path) -> None:
    params = read_params()
    model = load_model(Path("model"), params, CPU, "float32")
    x0 = to_model_range(churches()[:6])
    drawn = between_images(model, params.section(InterpolateConfig, "interpolate"), x0)
    assert list(drawn) == ["ddim", "encode_250", "encode_500", "encode_750"]
    for t in (250, 500, 750):
        bar = model.schedule.at(t)
        noises = (drawn[f"encode_{t}"].noises[:, [0, -1]].flatten(0, 1) - bar**0.5 * x0) / (1 - bar) ** 0.5
        assert float(noises.mean()) == pytest.approx(0, abs=0.02)
        assert float(noises.std()) == pytest.approx(1, abs=0.02)


def test_ratios_of_a_path(backbone: dict[str, Tensor]) -> None:
    a, b = churches()[:2]
    paths = np.stack([[a, b, a, b], [a, a, b, b], [a, a, a, a]])
    found = path_metrics(Metric(load_lpips(backbone, "alex")), paths)
    assert found.steps.shape == (3, 3)
    assert found.largest_over_mean.tolist() == pytest.approx([1, 3, 0])
    assert found.length_over_end_distance.tolist() == pytest.approx([3, 1, 0])


def test_detail_and_error_of_images() -> None:
    flat = np.zeros((1, 4, 4, 3), np.uint8)
    striped = flat.copy()
    striped[:, ::2] = 100
    assert detail(np.stack([flat, striped])).tolist() == [[0], [50]]
    assert rms_error(flat, striped).tolist() == pytest.approx([100 / math.sqrt(2)])


def interpolate(monkeypatch: pytest.MonkeyPatch, *options: str) -> dict[str, bytes]:
    """Run the stage as its command line does; what it wrote into `out`."""
    monkeypatch.setattr(sys, "argv", ["interpolate", "model", "--output", "out", *options])
    run("stages.interpolate", main)
    return outputs(Path("out"))


def test_all_outputs_twice(folder: Path, backbone: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    write_safetensors(Path("backbone"), backbone, {"net": "alex"})
    options = ["--backbone", "backbone", "--images", ".", "--methods", METHODS]
    written = interpolate(monkeypatch, *options)
    assert written == interpolate(monkeypatch, *options)
    assert np.load("out/interpolation.npy").shape == (4, 3, 3, 48, 48, 3)
    assert np.load("out/interpolation_real/interpolation_real.npy").shape == (4, 3, 3, 48, 48, 3)
    found = json.loads(written["interpolate.json"])
    assert list(found) == ["noise", "real"]
    assert list(found["noise"]) == METHODS.strip("[]").split(", ")
    norms = {name: method["noise_norm"]["middle"] for name, method in found["noise"].items()}
    assert norms["lerp_ddim"] == pytest.approx(58.8, abs=2)
    assert norms["slerp_ddim"] == pytest.approx(83.1, abs=2)
    for method in [*found["noise"].values(), *found["real"].values()]:
        assert method["length_over_end_distance"]["value"] >= 1
        assert method["largest_over_mean"]["value"] >= 1
        assert method["lpips_step"]["n"] == 6
    assert found["real"]["ddim"]["reconstruction"]["rmse"]["n"] == 6


def test_by_hand_with_a_model_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--pairs", "1", "--frames", "7", "--methods", "slerp_native"]
    assert set(interpolate(monkeypatch, *options)) == {"interpolation.npy", "interpolation.png"}
    assert np.load("out/interpolation.npy").shape == (1, 1, 7, 48, 48, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backbone", "backbone"], "--backbone and --images go together"),
        (
            ["--backbone", "backbone", "--images", ".", "--pairs", "5"],
            "interpolate.pairs = 5: must be from 2 to 4: val.npy has 8 images",
        ),
        (["--backbone", "backbone", "--images", ".", "--pairs", "1"], "interpolate.pairs = 1: must be from 2 to 4"),
        (["--steps", "1001"], "steps = 1001: a sampler takes from 1 to diffusion.steps = 1000"),
        (["--methods", "[lerp_ddim, magic]"], "methods = magic: must be of lerp_ancestral, lerp_ancestral_shared,"),
    ],
)
def test_a_wrong_option_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as error:
        interpolate(monkeypatch, *options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 4}, "frames = 4: must be odd"),
        ({"methods": ["lerp_ddim", "lerp_ddim"]}, "lerp_ddim, lerp_ddim: each once"),
        ({"methods": []}, "at least 1 item"),
    ],
)
def test_an_interpolation_without_a_middle_or_of_nothing_new_is_refused(change: dict, message: str) -> None:
    values = {"pairs": 1, "shown": 1, "frames": 5, "seed": 0, "methods": ["lerp_ddim"], "steps": 50}
    parse(InterpolateConfig, values, "interpolate")
    with pytest.raises(ConfigError, match=message):
        parse(InterpolateConfig, {**values, **change}, "interpolate")
