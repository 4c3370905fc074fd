"""Trained weights as others load them: a folder for diffusers, safetensors with a model card, ONNX."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import Tensor, nn

from ddpm.autoencoder.network import Codec
from ddpm.config import parse
from ddpm.diffusion.schedule import DiffusionConfig
from ddpm.diffusion.unet import UNet
from stages.kit.command import run
from stages.kit.errors import StageError
from stages.kit.files import digest, write_text
from stages.kit.params import read_params
from stages.shared.files.formats import read_safetensors, write_safetensors
from stages.shared.files.latents import latents_in
from stages.shared.models.diffusion import Model, ModelSampling, load_model, weights_file
from tools.diffusers_names import autoencoder_arguments, scheduler_arguments, unet_arguments

try:
    import onnxruntime
    from diffusers import AutoencoderKL, DDIMScheduler, DDPMPipeline, DDPMScheduler, LDMPipeline, UNet2DModel
except ImportError as error:
    MISSING: str | None = str(error)
else:
    MISSING = None

LOCK = Path("dvc.lock")
CARD = Path(__file__).with_name("model_card.jinja")
OPSET = 20
TOLERANCE = 1e-4
"""By how much ONNX Runtime's output may differ from torch's."""


def main(
    weights: Path,
    folder: Path,
    *,
    changes: Annotated[Mapping[str, Any], ModelSampling, "models.NAME.sampling"],
    metrics: Path | None = None,
    latents: Path | None = None,
) -> str:
    """Write WEIGHTS, the folder that `train` writes or a file of it, to FOLDER.

    That is what `diffusers.DDPMPipeline.from_pretrained(FOLDER)` reads, `model.safetensors`, `network.onnx`, and a
    model card, README.md. METRICS of a run with these weights, as reports/details/evaluate.json has them, go into it.
    How the model is sampled from goes into `model.safetensors` and, as far as it has words for it, into the scheduler.

    A model of latents needs the folder LATENTS, which has its autoencoder. It is `diffusers.LDMPipeline` that reads it,
    and `autoencoder.safetensors` and `decoder.onnx` come with it.
    """
    if MISSING:
        raise StageError(f"{MISSING}; the packages of the group `export` are needed: pip install --group export")
    if folder.exists():
        raise StageError(f"{folder} exists; name another folder, or remove it")
    evaluated(metrics)
    params = read_params()
    model = load_model(weights, params, torch.device("cpu"), "float32", changes, latents)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        file = weights_file(weights, params, changes)
        tensors, settings = read_safetensors(file)
        pipeline_of(model, parse(DiffusionConfig, settings["diffusion"], str(file))).save_pretrained(part)
        network = model.network.to(memory_format=torch.contiguous_format)
        inputs = inputs_of(network, model.shape)
        write_onnx(network, inputs, part / "network.onnx")
        if model.codec and latents:
            write_onnx(Decoder(model.codec).eval(), {"latents": inputs["xt"]}, part / "decoder.onnx")
            shutil.copy(latents_in(latents).autoencoder, part)
        settings["sampling"] = {**asdict(model.own), "ema_decay": settings.get("ema_decay", model.own.ema_decay)}
        write_safetensors(part / "model.safetensors", tensors, settings)
        for written in part.rglob("*.safetensors"):
            shutil.copymode(part / "model_index.json", written)  # safetensors lets nobody else read it
        patch = (model.codec.autoencoder if model.codec else model.network).config.patch
        write_text(part / "README.md", card(file, settings, metrics, patch))
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return f"a pipeline for diffusers, safetensors, ONNX and a model card in {folder}"


def pipeline_of(model: Model, diffusion: DiffusionConfig) -> Any:
    """Network and schedule of `model` in diffusers, to be sampled with the clipping and variance that are its own."""
    network = model.network
    channels, side, _ = model.shape
    theirs: Any = UNet2DModel(**unet_arguments(network.config, side, len(model.classes), channels))
    theirs.load_state_dict(network.state_dict())
    arguments = scheduler_arguments(diffusion, model.denoiser.target, model.own)
    if model.schedule.log_snr_shift:
        arguments["trained_betas"] = model.schedule.beta.tolist()
    if model.codec is None:
        return DDPMPipeline(theirs.eval(), DDPMScheduler(**arguments))
    del arguments["variance_type"]  # DDIM's is always the small one
    return LDMPipeline(autoencoder_of(model.codec, model.size), theirs.eval(), DDIMScheduler(**arguments))


def autoencoder_of(codec: Codec, size: int) -> Any:
    """`codec` as diffusers' autoencoder, whose latents are normalised by its two 1 x 1 convolutions."""
    autoencoder, mean, scale = codec.autoencoder, codec.mean.flatten(), codec.scale.flatten()
    theirs: Any = AutoencoderKL(**autoencoder_arguments(autoencoder.config, size))
    normalised = {
        "quant_conv.weight": torch.cat([1 / scale, torch.ones_like(scale)]).diag()[:, :, None, None],
        "quant_conv.bias": torch.cat([-mean / scale, -2 * scale.log()]),
        "post_quant_conv.weight": scale.diag()[:, :, None, None],
        "post_quant_conv.bias": mean,
    }
    theirs.load_state_dict({**autoencoder.state_dict(), **normalised})
    return theirs.eval()


class Decoder(nn.Module):
    """Latents `[B, C, h, w]`, as the denoiser draws them, to images `[B, 3, H, W]`."""

    def __init__(self, codec: Codec):
        super().__init__()
        self.autoencoder, self.codec = codec.autoencoder, codec

    def forward(self, latents: Tensor) -> Tensor:
        """As `Codec.decode`."""
        return self.codec.decode(latents)


def write_onnx(network: nn.Module, inputs: Mapping[str, Tensor], path: Path) -> None:
    """Write the network for any number of images, and compare it with torch on these.

    Raises:
        StageError: ONNX Runtime gives something else.
    """
    batch = torch.export.Dim("batch")
    torch.onnx.export(
        network,
        tuple(inputs.values()),
        path,
        input_names=list(inputs),
        output_names=["output"],
        dynamic_shapes=tuple({0: batch} for _ in inputs),
        opset_version=OPSET,
        external_data=False,
        verbose=False,
    )
    with torch.inference_mode():
        expected = network(*inputs.values()).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [found] = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    apart = float(np.abs(found - expected).max())
    if not apart <= TOLERANCE:
        raise StageError(f"{path}: ONNX Runtime's output differs by {apart:.1e} from torch's")


def inputs_of(network: UNet, shape: tuple[int, int, int]) -> dict[str, Tensor]:
    """Two images, time steps, and classes for a network that knows some."""
    inputs = {"xt": torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)), "t": torch.tensor([7, 400])}
    return inputs | ({"label": torch.tensor([0, 1])} if network.config.conditional else {})


def evaluated(metrics: Path | None) -> dict[str, Any]:
    """What `reports/details/evaluate.json` says; nothing without it.

    Raises:
        StageError: `metrics` is another file.
    """
    if not metrics:
        return {}
    try:
        found = json.loads(metrics.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("samples"), dict):
        raise StageError(f"{metrics}: has no metrics of samples; reports/details/evaluate.json has those of a run")
    return found


def card(weights: Path, settings: Mapping[str, Any], metrics: Path | None, patch: int) -> str:
    """The model card. It names a run only where dvc.lock has recorded these weights, and says so of the metrics.

    The pipeline gives images as blocks of `patch` x `patch` pixels.
    """
    lock = LOCK.read_text(encoding="utf-8") if LOCK.exists() else ""
    ours = folder_digest(weights.parent) in lock
    environment = Environment(  # Markdown
        loader=FileSystemLoader(CARD.parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(CARD.name).render(
        **settings,
        patch=patch,
        digest=digest(weights),
        metrics=evaluated(metrics),
        measured=bool(ours and metrics and md5(metrics.read_bytes()) in lock),
        lock=digest(LOCK) if ours else None,
    )


def folder_digest(folder: Path) -> str:
    """What dvc.lock has for a FOLDER of weights as `train` writes it; of a folder with other files no digest at all."""
    files = sorted(folder.iterdir())
    if any(path.suffix != ".safetensors" for path in files):
        return "no folder of train"
    listed = [{"md5": md5(path.read_bytes()), "relpath": path.name} for path in files]
    return f"{md5(json.dumps(listed, sort_keys=True).encode())}.dir"


def md5(content: bytes) -> str:
    """As DVC names contents."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


if __name__ == "__main__":
    run("tools.export", main)
