"""Weights for other programs and from them: the same images from the same noise."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DPMSolverMultistepScheduler, UNet2DModel
from drawn import churches, unseen, write_duplicates, write_set
from dvc.repo import Repo
from exporting import SIZE, STEPS, loaded
from safetensors.torch import load_file, save_file
from support import WriteParams
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from ddpm.config import parse
from ddpm.diffusion.schedule import DiffusionConfig
from ddpm.sampling.predictor import PredictorConfig
from ddpm.sampling.samplers import SamplerConfig
from ddpm.sampling.timesteps import Spacing
from stages.evaluate import stage as evaluate
from stages.interpolate import stage as interpolate
from stages.kit.errors import StageError
from stages.kit.files import digest
from stages.kit.params import read_params
from stages.rank import stage as rank
from stages.sample import stage as sample
from stages.shared.files.formats import read_safetensors, write_safetensors
from stages.shared.models.diffusion import Model, Sampling
from tools import export, import_diffusers
from tools.diffusers_names import CONVENTIONS, FIXED


def drawn(model: Model, sampler: str, steps: int, *, clip: bool) -> Tensor:
    """Three images, from noise of one generator, which is asked as diffusers' pipelines ask it."""
    generator, patch = torch.Generator().manual_seed(5), model.network.config.patch

    def noise() -> Tensor:
        shape = (3, 3 * patch**2, SIZE // patch, SIZE // patch)
        return pixel_shuffle(torch.randn(shape, generator=generator), patch)

    how = Sampling(PredictorConfig(clip=clip), parse(SamplerConfig, {"sampler": sampler, "steps": steps}, "sampler"))
    return model.sample(how, noise(), noise, lambda *_: None)


def exported(file: Path, folder: Path) -> Path:
    """What `export` writes for diffusers alone; ONNX takes ten seconds."""
    _, settings = read_safetensors(file)
    diffusion = parse(DiffusionConfig, settings["diffusion"], "diffusion")
    export.pipeline_of(loaded(file), diffusion).save_pretrained(folder)
    return folder


def opened(folder: Path) -> DDPMPipeline:
    pipeline = DDPMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize(("target", "schedule"), [("x0", "linear"), ("eps", "linear"), ("v", "cosine")])
@pytest.mark.parametrize("patch", [1, 2])
def test_pipeline_draws_our_images(written: Any, tmp_path: Path, target: str, schedule: str, patch: int) -> None:
    file = written(target, schedule, patch=patch)
    exported(file, tmp_path / "out")
    pipeline = opened(tmp_path / "out")
    for steps in (STEPS, 5):
        generator = torch.Generator().manual_seed(5)
        given = pipeline(3, generator, num_inference_steps=steps, output_type="np").images
        found = pixel_shuffle(torch.from_numpy(given).permute(0, 3, 1, 2), patch)
        expected = (drawn(loaded(file), "ancestral", steps, clip=True) / 2 + 0.5).clamp(0, 1)
        assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(("name", "scheduler"), [("ddim", DDIMScheduler), ("dpmpp_2m", DPMSolverMultistepScheduler)])
def test_other_schedulers_draw_our_images(written: Any, tmp_path: Path, name: str, scheduler: Any) -> None:
    file = written()
    exported(file, tmp_path / "out")
    pipeline = opened(tmp_path / "out")
    steps = scheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    steps.set_timesteps(5)
    xt = torch.randn(3, 12, SIZE // 2, SIZE // 2, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        for t in steps.timesteps:
            xt = steps.step(pipeline.unet(xt, t).sample, t, xt).prev_sample
    assert torch.allclose(pixel_shuffle(xt, 2), drawn(loaded(file), name, 5, clip=False), atol=1e-4)


@pytest.mark.parametrize("spacing", get_args(Spacing))
def test_a_pipeline_has_strides_for_each_spacing(
    written: Any, write_params: WriteParams, tmp_path: Path, spacing: str
) -> None:
    write_params({"model": "smoke", "extract.size": SIZE, "models.smoke.sampling.spacing": spacing})
    exported(written(), tmp_path / "out")
    scheduler = opened(tmp_path / "out").scheduler
    scheduler.set_timesteps(2)
    assert len(scheduler.timesteps) == 2


def test_onnx_takes_any_number_of_images(written: Any, tmp_path: Path) -> None:
    """And the classes of a conditional network."""
    file = written(conditional=True)
    export.main(file, tmp_path / "out", changes={})
    inputs = {"xt": torch.randn(5, 3, SIZE, SIZE), "t": torch.arange(5), "label": torch.tensor([0, 1, 2, 3, 3])}
    session = onnxruntime.InferenceSession(tmp_path / "out/network.onnx", providers=["CPUExecutionProvider"])
    [found] = session.run(None, {key: value.numpy() for key, value in inputs.items()})
    with torch.inference_mode():
        expected = loaded(file).network(*inputs.values())
        theirs = opened(tmp_path / "out").unet(
            pixel_unshuffle(inputs["xt"], 2), inputs["t"], class_labels=inputs["label"]
        )
    assert np.abs(found - expected.numpy()).max() < 1e-4
    assert torch.allclose(pixel_shuffle(theirs.sample, 2), expected, atol=1e-4)


@pytest.mark.parametrize("changes", [{"patch": 1}, {"conditional": True, "target": "eps", "schedule": "cosine"}])
def test_there_and_back(written: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Tensors and all that an image depends on stay; the images are made by the recipe of params.yaml."""
    file = written(**changes)
    exported(file, tmp_path / "out")
    import_diffusers.main(tmp_path / "out", tmp_path / "back.safetensors")
    (before, settings), (after, found) = read_safetensors(file), read_safetensors(tmp_path / "back.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert found["diffusion"] == pytest.approx(settings["diffusion"])
    assert found["recipe"] == settings["recipe"]
    assert found["image_recipe"].startswith(f"{SIZE}-center_crop-")
    one, other = (drawn(loaded(each), "ddim", 5, clip=True) for each in (file, tmp_path / "back.safetensors"))
    assert torch.allclose(one, other, atol=1e-5)


def write_as_google(unet: UNet2DModel, folder: Path) -> None:
    """As diffusers' first checkpoints lay on the hub: all in one folder, with attention's older names, pickled."""
    folder.mkdir()
    newer = {"dropout", "downsample_type", "upsample_type", "attn_norm_num_groups", "num_class_embeds", "add_attention"}
    config = {name: value for name, value in unet.config.items() if name not in newer and name[0] != "_"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "scheduler_config.json").write_text(json.dumps({"beta_schedule": "linear", "clip_sample": True}))
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = unet.state_dict().items()
    older = {re.sub("|".join(names), lambda name: names[name[0]], key): value for key, value in tensors}
    torch.save(older, folder / "diffusion_pytorch_model.bin")


def test_a_checkpoint_from_elsewhere_goes_through_our_stages(
    write_params: WriteParams, backbone: dict[str, Tensor], tmp_path: Path
) -> None:
    """Imported, then sampled, interpolated, ranked and evaluated beside drawn churches."""
    short = {"interpolate.pairs": 2, "interpolate.frames": 3, "interpolate.steps": 2, "rank.batches": 2}
    write_params({"model": "smoke", "extract.filter": "bilinear", "sample.steps": 3, "sample.count": 12, **short})
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    shape = {**FIXED, **CONVENTIONS["tensorflow"], **blocks, "attention_head_dim": None}
    unet = UNet2DModel(48, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, **shape).eval()
    write_as_google(unet, Path("theirs"))
    with pytest.raises(StageError, match=r"theirs: no weights as safetensors; .* --allow-pickle reads it"):
        import_diffusers.main(Path("theirs"), Path("theirs.safetensors"))
    import_diffusers.main(Path("theirs"), Path("theirs.safetensors"), allow_pickle=True)
    write_set(Path("train"), churches())
    write_set(Path("val"), unseen())
    write_duplicates(Path("duplicates.csv"))
    write_safetensors(Path("backbone"), backbone, {"net": "alex"})

    with torch.inference_mode():
        x, t = torch.randn(2, 3, 48, 48), torch.tensor([3, 977])
        assert torch.allclose(loaded(Path("theirs.safetensors")).network(x, t), unet(x, t).sample, atol=1e-5)

    here: dict[str, Any] = {"images": Path(), "samples": Path()}
    compared = {**here, "backbone": Path("backbone"), "figures": Path("figures")}
    tables = {"neighbours": Path("neighbours.csv"), "distances": Path("distances.csv")}
    sample.main(Path("theirs.safetensors"), changes={}, **here)
    interpolate.main(Path("theirs.safetensors"), changes={}, **compared)
    rank.main(**compared, **tables, details=Path("rank.json"))
    evaluate.main(**compared, details=Path("evaluate.json"))
    assert len(json.loads(Path("interpolate.json").read_text())["noise"]) > 1
    assert len(pd.read_csv("neighbours.csv")) == 12
    assert json.loads(Path("evaluate.json").read_text())["samples"]["kid_alexnet"]["n"] == 12


def test_missing_weights_are_not_made_up(written: Any, tmp_path: Path) -> None:
    """diffusers would go on with random ones."""
    exported(written(), tmp_path / "out")
    file = tmp_path / "out/unet/diffusion_pytorch_model.safetensors"
    save_file({name: value for name, value in load_file(file).items() if name != "conv_out.bias"}, file)
    with pytest.raises(StageError, match=r"the weights aren't those of config.json: missing_keys conv_out\.bias"):
        import_diffusers.main(tmp_path / "out", tmp_path / "back.safetensors")
    assert not (tmp_path / "back.safetensors").exists()


METRICS = {"samples": {"kid_alexnet": {"value": 0.03, "low": -0.01, "high": 0.07, "n": 64}}}
NOT_SHOWN = "no dvc.lock records both"


def test_the_card_has_settings_metrics_and_digests(written: Any, tmp_path: Path) -> None:
    file = written()
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    export.main(file, tmp_path / "out", changes={"variance": "large"}, metrics=tmp_path / "metrics.json")
    _, settings = read_safetensors(tmp_path / "out/model.safetensors")
    assert settings["sampling"] == {**read_params().mapping("models", "smoke", "sampling"), "variance": "large"}
    assert opened(tmp_path / "out").scheduler.config.variance_type == "fixed_large"
    text = (tmp_path / "out/README.md").read_text()
    assert "| kid_alexnet | 0.0300 | -0.0100 to 0.0700 | 64 |" in text
    assert "pixel_shuffle(patches, 2)" in text
    assert f"this was made of: `{digest(file)}`.\nThe code and these weights are under the MIT" in text
    assert "\nlicense: mit\n" in text
    assert NOT_SHOWN in text


@pytest.mark.parametrize("text", ['{"kid_alexnet": 0.01}', "no JSON"])
def test_other_metrics_are_refused_before_anything_is_made(text: str, written: Any, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(StageError, match=r"metrics\.json: has no metrics of samples; reports/details/evaluate\.json"):
        export.main(written(), tmp_path / "out", changes={}, metrics=tmp_path / "metrics.json")
    assert not (tmp_path / "out").exists()


def test_the_card_names_the_run_that_dvc_has_recorded_and_no_other(written: Any, tmp_path: Path) -> None:
    """As DVC itself writes digests."""
    (tmp_path / "model").mkdir()
    file = written().rename(tmp_path / "model" / "ema_0.99.safetensors")
    (tmp_path / "model" / "raw.safetensors").write_bytes(b"other weights")
    metrics = tmp_path / "metrics.json"
    metrics.write_text(json.dumps(METRICS))
    _, settings = read_safetensors(file)
    Path("dvc.lock").write_text("of another run")
    assert "dvc.lock that" not in export.card(file, settings, metrics, 2)
    Repo.init(no_scm=True).add(["model", "metrics.json"])
    Path("dvc.lock").write_text(Path("model.dvc").read_text())
    assert f"dvc.lock that records them has the SHA-256 `{digest(Path('dvc.lock'))}`" in export.card(
        file, settings, None, 2
    )
    assert NOT_SHOWN in export.card(file, settings, metrics, 2)
    Path("dvc.lock").write_text(Path("model.dvc").read_text() + Path("metrics.json.dvc").read_text())
    assert NOT_SHOWN not in export.card(file, settings, metrics, 2)


@pytest.mark.parametrize("objective", ["matching", "distillation"])
def test_the_card_of_tuned_weights_counts_their_times(objective: str, written: Any) -> None:
    file = written()
    _, settings = read_safetensors(file)
    text = export.card(file, {**settings, "tune": {"objective": objective, "stops": [39, 17]}}, None, 2)
    assert f"tuned ({objective}): they know 2 times only" in text
    assert ("all of which have to be taken" in text) == (objective == "matching")


def test_the_card_of_foreign_weights_claims_neither_our_licence_nor_our_run(written: Any, tmp_path: Path) -> None:
    exported(written(), tmp_path / "theirs")
    (tmp_path / "back").mkdir()
    file = tmp_path / "back" / "back.safetensors"
    import_diffusers.main(tmp_path / "theirs", file)
    Path("dvc.lock").write_text("of another run")
    _, settings = read_safetensors(file)
    text = export.card(file, settings, None, 2)
    assert "trained elsewhere and converted by ddpm-church" in text
    assert "the checkpoint `theirs`, under the terms of its authors" in text
    assert not re.search(r"licen[sc]e|MIT|dvc\.lock|recipe `", text)


def test_nothing_is_overwritten(written: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(StageError, match="exists; name another folder"):
        export.main(written(), tmp_path / "out", changes={})


@pytest.mark.parametrize(
    ("file", "name", "value", "message"),
    [
        ("unet/config.json", "act_fn", "gelu", "act_fn = 'gelu': our network has 'silu'"),
        ("unet/config.json", "in_channels", 4, "in_channels = 4, out_channels = 12: must be equal"),
        ("unet/config.json", "up_block_types", ["UpBlock2D", "UpBlock2D"], "must be DownBlock2D, AttnDownBlock2D"),
        ("unet/config.json", "layers_per_block", 2, "size mismatch for"),
        ("unet/config.json", "freq_shift", 1, "'freq_shift': 1, 'downsample_padding': 1, 'norm_eps': 1e-05}: must be"),
        ("scheduler/scheduler_config.json", "beta_schedule", "sigmoid", "must be one of linear, squaredcos_cap_v2"),
        ("scheduler/scheduler_config.json", "trained_betas", [0.1], r"trained_betas = \[0\.1\]: ours has None"),
    ],
)
def test_what_our_network_can_t_be_is_one_line(
    written: Any, tmp_path: Path, file: str, name: str, value: object, message: str
) -> None:
    exported(written(), tmp_path / "out")
    path = tmp_path / "out" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(StageError, match=message) as error:
        import_diffusers.main(tmp_path / "out", tmp_path / "back.safetensors")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "back.safetensors").exists()
