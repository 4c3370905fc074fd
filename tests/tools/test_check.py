"""What a later stage would refuse is refused before anything is trained."""

import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from support import REPOSITORY, STAGES, WriteParams

from ddpm.config import ConfigError
from stages.kit.errors import StageError
from stages.kit.params import read_params
from stages.kit.start import takes_long
from stages.shared.files.formats import write_safetensors
from tools import check

CONDITIONAL = {"data": "classes", "models.tiny.network.conditional": True}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {**CONDITIONAL, "sample.category": "tower", "sample.labels": "training", "sample.guidance": 2.0},
        {"rank.best": 100, "rank.samples": 100},
        {"interpolate.frames": 129, "sample.count": 6},
        {"tune.objective": "distillation", "sample.steps": 4, "interpolate.methods": ["slerp_native"]},
        {"tune.objective": "distillation", "tune.points": 16, "tune.teacher_steps": 4, "sample.steps": 8},
    ],
)
def test_what_all_stages_accept_passes(write_params: WriteParams, changes: dict[str, Any]) -> None:
    write_params(changes)
    check.main()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models.tiny.sampling.steps": 1001}, r"models\.tiny\.sampling\.steps = 1001: .* to diffusion\.steps = 1000"),
        ({"sample.steps": 50, "diffusion.steps": 40}, r"sample\.steps = 50: .* diffusion\.steps = 40"),
        ({"diffusion.steps": 40}, r"interpolate\.steps = 50: .* diffusion\.steps = 40"),
        ({"diffusion.steps": 1, "diffusion.schedule": "cosine"}, r"diffusion\.steps = 1: .* at least 2"),
        ({"sample.sampler": "magic"}, r"sample\.sampler = \"magic\": input should be 'ancestral'"),
        ({"sample.threshold": 2.0}, r"sample .*threshold must be a quantile"),
        ({"sample.guide": "nowhere", "sample.guidance": 2.0}, r"sample\.guide: .*nowhere: no such file or folder"),
        ({"sample.category": "tower"}, "the model knows no classes"),
        ({**CONDITIONAL, "sample.category": "castle"}, r"sample\.category = 'castle': the model knows church, tower"),
        ({"models.tiny.sampling.ema_decay": 0.9}, r"sampling\.ema_decay = 0\.9: must be one of recipe\.ema_decays"),
        ({"sample.count": 3}, r"sample\.count = 3: evaluate\.neighbourhood = 3 needs 4"),
        ({"rank.best": 65}, r"rank\.best = 65: more than are ranked, by rank\.samples = 64 and sample\.count = 2000"),
        ({"sample.count": 5}, r"rank\.best = 6: more than are ranked"),
        ({"interpolate.pairs": 1}, r"interpolate\.pairs = 1: at least 2"),
        ({"interpolate.frames": 8}, r"frames = 8: must be odd"),
        ({"interpolate.methods": ["magic"]}, r"methods = magic: must be of"),
        ({"likelihood.bins": 0}, r"likelihood\.bins = 0"),
        ({"evaluate.inception": "nowhere.pth"}, r"evaluate\.inception = nowhere\.pth: no such file"),
        ({"tune.points": 9}, r"tune .*points = 9: must be a multiple of evaluations = 2"),
        ({"tune.objective": "matching", "sample.steps": 4}, r"tuned weights know 2 times; take .* and 2 steps"),
        ({"tune.objective": "matching", "sample.steps": 1}, r"sample\.steps = 1 .* take .* and 2 steps"),
        ({"tune.objective": "tuning", "tune.points": 1002}, r"tune\.points = 1002: must be at most 1000"),
        (
            {"tune.objective": "distillation", "tune.points": 400, "tune.teacher_steps": 3},
            r"tune\.points = 400 x tune\.teacher_steps = 3: must be at most 1000",
        ),
        ({"tune.objective": "tuning", "sample.spacing": "logsnr"}, r"yaml: sample\.steps = 2 with spacing logsnr"),
        ({"tune.objective": "tuning", "sample.steps": 5}, r"sample\.steps = 5 .* take spacing logsnr_trailing"),
        (
            {"tune.objective": "tuning", "sample.sampler": "ddim", "sample.steps": 6},
            r"sample\.sampler = ddim: must be consistency, the only one of tuned weights",
        ),
        ({"sample.sampler": "consistency", "sample.steps": 2}, r"must be another: consistency is for tuned weights"),
        ({"model": "gan", "extract.size": 40}, r"models\.gan\.network: images of 40 px can't be halved"),
        ({"rank.net": "resnet"}, r"rank\.net = \"resnet\""),
    ],
)  # fmt: skip
def test_what_a_later_stage_refuses_is_named(write_params: WriteParams, changes: dict[str, Any], message: str) -> None:
    write_params(changes)
    with pytest.raises((ConfigError, StageError), match=message) as caught:
        check.main()
    assert "\n" not in str(caught.value)


def test_a_guide_of_tuned_weights_has_their_average(write_params: WriteParams) -> None:
    """Not that of the weights before, 0.997."""
    write_params({"tune.objective": "distillation", "sample.guide": "weak", "sample.guidance": 2.0})
    check.Path("weak").mkdir()
    write_safetensors(check.Path("weak/ema_0.997.safetensors"), {}, {"network": {}})
    with pytest.raises(ConfigError, match=r"sampling\.ema_decay = 0\.99: weak has ema_0\.997\.safetensors"):
        check.main()


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({}, ["train"]),
        ({"data": "lsun"}, ["fetch", "extract", "train"]),
        ({"data": "folder", "tune.objective": "tuning"}, ["extract", "train", "tune"]),
        ({"data": "smoke", "model": "latent", "tune.objective": "none"}, ["autoencode", "train"]),
        ({"data": "path", "model": "gan"}, ["extract", "gan"]),
    ],
)
def test_stages_that_take_long_ask_first(write_params: WriteParams, changes: dict[str, Any], stages: list[str]) -> None:
    """As images that come from elsewhere do, and every training."""
    write_params(changes)
    params = read_params()
    assert [stage for stage in STAGES if takes_long(stage, params.model(), params)] == stages


def test_dvc_trains_only_after_the_check(write_params: WriteParams) -> None:
    """And counts what there is; by hand, training is nobody else's business."""
    write_params({"sample.count": 5, "models.tiny.network.channels": -1})
    command = [sys.executable, "-m", "stages.train", "--images", "i", "--model", "m", "--details", "d", "--losses", "l"]
    said = []
    for stage in ({"DVC_STAGE": "train"}, {}):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **stage}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode
        said.append(done.stderr)
    assert re.match(r"check: error: params\.yaml: .*channels", said[0])
    assert re.match(r"train: error: params\.yaml: .*channels", said[1])


def test_the_images_are_counted(write_params: WriteParams) -> None:
    write_params({})
    for name, count in (("train", 20), ("val", 15)):
        np.save(f"{name}.npy", np.zeros((count, 1, 1, 3), np.uint8))
    with pytest.raises(StageError, match=r"15 held-out images are too few: interpolate\.pairs = 8 takes 16"):
        check.main(images=check.Path())
