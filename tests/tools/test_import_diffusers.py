"""Checkpoints of diffusers' own training script: imported as they are, or named as what they are."""

import json
import re
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from support import WriteParams

from ddpm.config import parse
from ddpm.diffusion.schedule import DiffusionConfig
from ddpm.sampling.predictor import PredictorConfig
from ddpm.sampling.samplers import SamplerConfig
from stages.kit.errors import StageError
from stages.kit.params import read_params
from stages.shared.files.formats import read_safetensors
from stages.shared.models.diffusion import Model, Sampling, load_model, sampling
from tools import export, import_diffusers

SIZE, STEPS = 64, 12
SCRIPT = {
    "sample_size": SIZE, "in_channels": 3, "out_channels": 3, "layers_per_block": 2,
    "block_out_channels": (16, 16, 32, 32, 64, 64), "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4,
}  # fmt: skip
"""As the script has it, with an eighth of the channels and of the groups; all else, heads of 8, are diffusers' own."""


@pytest.fixture
def saved(tmp_path: Path, write_params: WriteParams) -> Path:
    """A pipeline with random weights everywhere, as the script saves it."""
    write_params({"model": "report", "extract.size": SIZE, "sample.precision": "float32"})
    torch.manual_seed(0)
    unet = UNet2DModel(**SCRIPT).eval()
    for parameter in unet.parameters():
        parameter.data += 0.03 * torch.randn(parameter.shape)
    DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=STEPS)).save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def imported(folder: Path, **options: Any) -> Model:
    import_diffusers.main(folder, Path("ours.safetensors"), **options)
    return load_model(Path("ours.safetensors"), read_params(), torch.device("cpu"), "float32")


def opened(folder: Path) -> DDPMPipeline:
    pipeline = DDPMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize(
    "scheduler",
    [
        {},
        {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample", "timestep_spacing": "trailing"},
        {"variance_type": "fixed_large", "clip_sample": False, "prediction_type": "v_prediction"},
    ],
)
def test_it_draws_its_images_and_goes_back(saved: Path, scheduler: dict[str, Any]) -> None:
    """With the clipping and variance of its scheduler, while params.yaml has another model's."""
    change(saved / "scheduler" / "scheduler_config.json", **scheduler)
    model, pipeline = imported(saved), opened(saved)
    generator = torch.Generator().manual_seed(5)

    def noise() -> torch.Tensor:
        return torch.randn(2, 3, SIZE, SIZE, generator=generator)

    found = (model.sample(sampling(model.own, "sample"), noise(), noise) / 2 + 0.5).clamp(0, 1)
    given = pipeline(2, torch.Generator().manual_seed(5), num_inference_steps=STEPS, output_type="np").images
    assert np.abs(found.permute(0, 2, 3, 1).numpy() - given).max() < 1e-3
    assert given.std() > 0.02

    _, settings = read_safetensors(Path("ours.safetensors"))
    export.pipeline_of(model, parse(DiffusionConfig, settings["diffusion"], "")).save_pretrained("back")
    back = opened(Path("back"))
    for part in ("unet", "scheduler"):
        before, after = (
            {key: value for key, value in getattr(each, part).config.items() if key[0] != "_"}
            for each in (pipeline, back)
        )
        assert {**before, "beta_start": 0, "beta_end": 0} == {**after, "beta_start": 0, "beta_end": 0}
    assert back.scheduler.config.beta_end == pytest.approx(pipeline.scheduler.config.beta_end)
    tensors = pipeline.unet.state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in back.unet.state_dict().items())


def test_a_checkpoint_of_its_training(saved: Path) -> None:
    """Averaged weights are taken, and no noise schedule is made up."""
    checkpoint = saved / "checkpoint-500"
    unet = opened(saved).unet
    average = EMAModel(unet.parameters(), decay=0.75, model_cls=UNet2DModel, model_config=unet.config)
    unet.save_pretrained(checkpoint / "unet")
    for parameter in average.shadow_params:
        parameter.data += 1
    average.save_pretrained(checkpoint / "unet_ema")
    with pytest.raises(StageError, match=r"checkpoint-500: no scheduler_config\.json, .* --scheduler names"):
        imported(checkpoint)
    model = imported(checkpoint, scheduler=saved)
    assert model.own.ema_decay == 0.75
    found = model.network.get_parameter("conv_out.bias")
    assert torch.allclose(found, unet.conv_out.bias + 1)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("scheduler", {"thresholding": True}, "thresholding = True: ours has False"),
        ("scheduler", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr = True: ours has False"),
        ("scheduler", {"clip_sample_range": 2.0}, r"clip_sample_range = 2\.0: ours has 1"),
        ("scheduler", {"beta_schedule": "scaled_linear"}, "beta_schedule = 'scaled_linear': must be one of linear, sq"),
        ("scheduler", {"variance_type": "fixed_large_log"}, "variance_type = 'fixed_large_log': must be one of fixed"),
        ("scheduler", {"variance_type": "learned_range"}, "variance_type = 'learned_range': must be one of fixed"),
        ("scheduler", {"_class_name": "EDMEulerScheduler"}, "_class_name = 'EDMEulerScheduler': must be one of DDPM"),
        ("unet", {"norm_eps": 1e-6}, r"'norm_eps': 1e-06\}: must be \{.*\} or \{.*\} or \{"),
        ("unet", {"attention_head_dim": 24}, "head_channels = 24: attention has 64 channels"),
        ("unet", {"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift = 'scale_shift': our network"),
        ("unet", {"mid_block_type": None}, "mid_block_type = None: our network has 'UNetMidBlock2D'"),
        ("unet", {"add_attention": False}, "add_attention = False: our network has True"),
    ],
)
def test_what_is_not_carried_is_named(saved: Path, part: str, values: dict[str, Any], message: str) -> None:
    change(saved / part / {"scheduler": "scheduler_config.json", "unet": "config.json"}[part], **values)
    with pytest.raises(StageError) as error:
        imported(saved)
    assert re.search(message, str(error.value))
    assert "\n" not in str(error.value)
    assert not Path("ours.safetensors").exists()


def test_a_range_that_is_not_clipped_to_does_not_matter(saved: Path) -> None:
    change(saved / "scheduler" / "scheduler_config.json", clip_sample=False, clip_sample_range=2.0)
    assert not imported(saved).own.clip


def test_ddim_keeps_its_sampler(saved: Path) -> None:
    change(saved / "scheduler" / "scheduler_config.json", _class_name="DDIMScheduler", num_train_timesteps=1000)
    own = imported(saved).own
    assert sampling(own, "sample") == Sampling(
        PredictorConfig(clip=True), SamplerConfig(sampler="ddim", steps=50, spacing="leading")
    )


@pytest.mark.parametrize("there", [True, False])
def test_a_checkpoint_that_is_not_there_is_not_asked_for(
    write_params: WriteParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """Of a hub, which would take a folder's name for that of a repository."""
    asked: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        asked.append(arguments)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    if there:
        (tmp_path / "google").mkdir()
    message = r"google: Error no file named config\.json" if there else "google: no such folder"
    with pytest.raises(StageError, match=message):
        import_diffusers.main(Path("google"), tmp_path / "back.safetensors")
    assert not asked
