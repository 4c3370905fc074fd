"""A model of latents for other programs: the same images from the same noise, and the same latents."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from diffusers import LDMPipeline
from exporting import SIZE
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from ddpm.autoencoder.network import Autoencoder, AutoencoderConfig
from ddpm.config import ConfigError, parse
from ddpm.sampling.predictor import PredictorConfig
from ddpm.sampling.samplers import SamplerConfig
from stages.kit.files import digest
from stages.kit.params import read_params
from stages.shared.files.formats import write_safetensors
from stages.shared.models.diffusion import Sampling, load_model
from tools import export


@pytest.mark.parametrize("patch", [1, 2])
def test_latents_are_drawn_and_decoded_as_by_diffusers(written: Any, tmp_path: Path, patch: int) -> None:
    """The pipeline's images, its latents of images, and both networks in ONNX Runtime."""
    torch.manual_seed(0)
    shape = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "patch": patch, "groups": 4, "latent_channels": 4}
    autoencoder = Autoencoder(parse(AutoencoderConfig, shape, "network"))
    statistics = {
        "latents.mean": torch.tensor([0.5, -2.0, 0.0, 7.0]),
        "latents.std": torch.tensor([1.0, 0.1, 3.0, 2.0]),
    }
    codec = tmp_path / "autoencoder.safetensors"
    write_safetensors(codec, {**autoencoder.state_dict(), **statistics}, {"network": shape})
    x0_shape = autoencoder.config.latent_shape(SIZE)
    file = written(latents={"shape": x0_shape, "autoencoder": digest(codec)}, target="eps", patch=1, attention=[])
    with pytest.raises(ConfigError, match="as --latents data/latents"):
        export.main(file, tmp_path / "out", changes={})
    export.main(file, tmp_path / "out", changes={"clip": False}, latents=tmp_path)

    model = load_model(tmp_path / "out/model.safetensors", read_params(), torch.device("cpu"), "float32", {}, tmp_path)
    pipeline = LDMPipeline.from_pretrained(tmp_path / "out")
    given = pipeline(3, torch.Generator().manual_seed(5), num_inference_steps=5, output_type="np").images
    how = Sampling(PredictorConfig(clip=False), SamplerConfig(sampler="ddim", steps=5))
    noise = torch.randn(3, *x0_shape, generator=torch.Generator().manual_seed(5))
    latents = model.sample(how, noise, lambda: noise)
    with torch.inference_mode():
        images = model.codec.decode(latents)
        found = pixel_shuffle(torch.from_numpy(given).permute(0, 3, 1, 2), patch)
        assert torch.allclose(found, (images / 2 + 0.5).clamp(0, 1), atol=1e-4)
        theirs = pipeline.vqvae.encode(pixel_unshuffle(images, patch)).latent_dist
        assert torch.allclose(theirs.mean, model.codec.encode(images), rtol=1e-4, atol=1e-4)
        deviation = (autoencoder.encode(images).log_variance / 2).exp() / model.codec.scale
        assert torch.allclose(theirs.std, deviation, rtol=1e-4)
    session = onnxruntime.InferenceSession(tmp_path / "out/decoder.onnx", providers=["CPUExecutionProvider"])
    assert np.allclose(session.run(None, {"latents": latents.numpy()})[0], images.numpy(), atol=1e-4)
