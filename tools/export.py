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
from torch import Tensor

from ddpm.config import parse
from ddpm.diffusion.schedule import DiffusionConfig
from ddpm.diffusion.unet import UNet
from stages.kit.command import run
from stages.kit.errors import StageError
from stages.kit.files import digest, write_text
from stages.kit.params import read_params
from stages.shared.files.formats import read_safetensors, write_safetensors
from stages.shared.models.diffusion import Model, ModelSampling, load_model, settings_of, weights_file
from tools.diffusers_names import scheduler_arguments, unet_arguments

try:
    import onnxruntime
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
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
) -> str:
    """Write WEIGHTS, the folder that `train` writes or a file of it, to FOLDER.

    That is what `diffusers.DDPMPipeline.from_pretrained(FOLDER)` reads, `model.safetensors`, `network.onnx`, and a
    model card, README.md. METRICS of a run with these weights, as reports/details/evaluate.json has them, go into it.
    How the model is sampled from goes into `model.safetensors` and, as far as it has words for it, into the scheduler.
    """
    if MISSING:
        raise StageError(f"{MISSING}; the packages of the group `export` are needed: pip install --group export")
    if folder.exists():
        raise StageError(f"{folder} exists; name another folder, or remove it")
    params = read_params()
    if "latents" in settings_of(weights_file(weights, params, changes)):
        raise StageError(f"{weights}: a model of latents, which DDPMPipeline doesn't decode, is not exported")
    model = load_model(weights, params, torch.device("cpu"), "float32", changes)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        file = weights_file(weights, params, changes)
        tensors, settings = read_safetensors(file)
        pipeline_of(model, parse(DiffusionConfig, settings["diffusion"], str(file))).save_pretrained(part)
        write_onnx(model, part / "network.onnx")
        settings["sampling"] = {**asdict(model.own), "ema_decay": settings.get("ema_decay", model.own.ema_decay)}
        write_safetensors(part / "model.safetensors", tensors, settings)
        for written in part.rglob("*.safetensors"):
            shutil.copymode(part / "model_index.json", written)  # safetensors lets nobody else read it
        write_text(part / "README.md", card(file, settings, metrics))
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return f"a pipeline for diffusers, safetensors, ONNX and a model card in {folder}"


def pipeline_of(model: Model, diffusion: DiffusionConfig) -> Any:
    """Network and schedule of `model` in diffusers, to be sampled with the clipping and variance that are its own."""
    network = model.network
    size, classes = model.shape[1], len(model.classes)
    theirs: Any = UNet2DModel(**unet_arguments(network.config, size, classes))
    theirs.load_state_dict(network.state_dict())
    arguments = scheduler_arguments(diffusion, model.denoiser.target, model.own)
    if model.schedule.log_snr_shift:
        arguments["trained_betas"] = model.schedule.beta.tolist()
    return DDPMPipeline(theirs.eval(), DDPMScheduler(**arguments))


def write_onnx(model: Model, path: Path) -> None:
    """Write the network for any number of images, and compare it with torch on two.

    Raises:
        StageError: ONNX Runtime gives something else.
    """
    network = model.network.to(memory_format=torch.contiguous_format)
    inputs = inputs_of(network, model.shape)
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


def card(weights: Path, settings: Mapping[str, Any], metrics: Path | None) -> str:
    """The model card. It names a run only where dvc.lock has recorded these weights, and says so of the metrics."""
    numbers: dict[str, Any] = json.loads(metrics.read_text(encoding="utf-8")) if metrics else {}
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
        digest=digest(weights),
        metrics=numbers,
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
