"""That `models.report` trains as the report's code does: the same batches through both, weights compared step by step.

`python -m benchmarks.report_parity --zoubohao PATH` with PATH a checkout of
zoubohao/DenoisingDiffusionProbabilityModel-ddpm- (commit 54532d6 was tried), whose network, loss and learning rates are
used as they stand. The network is smaller than the report's, without dropout, which the two draw differently.
"""

import argparse
import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ddpm.diffusion.process import q_sample
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.diffusion.unet import UNet, UNetConfig
from ddpm.training import report
from ddpm.training.batches import Batches
from ddpm.training.recipe import Recipe, TrainConfig
from ddpm.training.trainer import Trainer, TrainState
from stages.kit.params import read_params

STEPS, EPOCHS, CHANNELS = 20, 150, 32
CPU = torch.device("cpu")
BLOCK = {
    "norm1": "block1.0",
    "conv1": "block1.2",
    "time_emb_proj": "temb_proj.1",
    "norm2": "block2.0",
    "conv2": "block2.3",
    "conv_shortcut": "shortcut",
}
ATTENTION = {"group_norm": "group_norm", "to_q": "proj_q", "to_k": "proj_k", "to_v": "proj_v", "to_out.0": "proj"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zoubohao", type=Path, required=True, help="a checkout of the report's code")
    sys.path.insert(0, str(parser.parse_args().zoubohao))
    params = read_params()
    network = replace(params.section(UNetConfig, "models", "report", "network"), channels=CHANNELS, dropout=0.0)
    recipe = replace(params.section(Recipe, "models", "report", "recipe"), batch_images=8)
    schedule = NoiseSchedule(params.section(DiffusionConfig, "diffusion"))
    config = replace(params.section(TrainConfig, "train"), precision="float32")
    images = np.random.default_rng(0).integers(0, 256, (64, 48, 48, 3), np.uint8)
    batches = Batches(images, None, 0, schedule, recipe, flip=False, seed=0, device=CPU)
    trainer = Trainer(batches, schedule, config, seed=0, epochs=EPOCHS)
    state = TrainState(UNet(network, 48), recipe, CPU)
    theirs = importlib.import_module("Diffusion.Model").UNet(1000, CHANNELS, [1, 2, 3, 4], [2], 2, 0.0)
    assert isinstance(state.model, UNet)
    pairs = paired(state.model, theirs)
    with torch.no_grad():
        for name, (own, other) in pairs.items():
            own.copy_(as_ours(name, other))
    train_both(trainer, state, theirs, pairs)


def train_both(trainer: Trainer, state: TrainState, theirs: nn.Module, pairs: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Print the losses of both, their rates, and how far their weights are apart."""
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=trainer.recipe.learning_rate, weight_decay=1e-4)
    warm_up = warm_up_of(importlib.import_module("Scheduler"), optimizer)
    print("| step | loss / (B 3 H W / 1000) | theirs | rate | theirs | mean difference of weights | mean weight |")
    print("|---|---|---|---|---|---|---|")
    for _ in trainer.fit(state):
        step = state.step - 1
        batch = trainer.batches.micro_batch(step, range(trainer.recipe.batch_images))
        optimizer.zero_grad()
        xt = q_sample(trainer.schedule, batch.x0, batch.t, batch.eps)
        loss = nn.functional.mse_loss(theirs(xt, batch.t), batch.eps, reduction="none").sum() / 1000.0
        loss.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        if state.step % (len(trainer.batches.images) // trainer.recipe.batch_images) == 0:
            warm_up.step()
        state.read_losses()
        apart = np.mean([float((own - as_ours(name, other)).abs().mean()) for name, (own, other) in pairs.items()])
        size = np.mean([float(own.abs().mean()) for own, _ in pairs.values()])
        scaled = float(loss) / trainer.recipe.loss_scale(batch.x0[0].numel())
        both = f"{trainer.learning_rate(step):.4g} | {rate:.4g}"
        print(f"| {step} | {state.losses[-1]:.6f} | {scaled:.6f} | {both} | {apart:.2e} | {size:.3f} |")
        if state.step == STEPS:
            break
    rates = []
    for epoch in range(STEPS * 8 // 64 + 1, EPOCHS):
        rates.append((trainer.recipe.learning_rate * report.rate(epoch, EPOCHS), optimizer.param_groups[0]["lr"]))
        warm_up.step()
    print(f"\nLargest difference of the rates of all {EPOCHS} epochs: {max(abs(a - b) for a, b in rates):.1e}")


def warm_up_of(scheduler: ModuleType, optimizer: torch.optim.Optimizer) -> Any:
    """Their schedule of rates, built as their training does."""
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=EPOCHS, eta_min=0)
    return scheduler.GradualWarmupScheduler(optimizer, multiplier=2.0, warm_epoch=EPOCHS // 10, after_scheduler=cosine)


def paired(ours: UNet, theirs: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """By our name, each parameter of ours with theirs."""
    modules = {
        "conv_in": "head",
        "time_embedding.linear_1": "time_embedding.timembedding.1",
        "time_embedding.linear_2": "time_embedding.timembedding.3",
        "conv_norm_out": "tail.0",
        "conv_out": "tail.2",
    }
    for i, name in enumerate(("mid_block.resnets.0", "mid_block.resnets.1")):
        modules |= block_names(name, f"middleblocks.{i}", "mid_block.attentions.0" if i == 0 else "")
    for ours_side, theirs_side, blocks, resample in (
        ("down_blocks", "downblocks", ours.config.blocks, "downsamplers"),
        ("up_blocks", "upblocks", ours.config.blocks + 1, "upsamplers"),
    ):
        number = 0
        for level, built in enumerate(getattr(ours, ours_side)):
            for block in range(blocks):
                attention = f"{ours_side}.{level}.attentions.{block}" if built.attentions else ""
                modules |= block_names(f"{ours_side}.{level}.resnets.{block}", f"{theirs_side}.{number}", attention)
                number += 1
            if getattr(built, resample):
                modules[f"{ours_side}.{level}.{resample}.0.conv"] = f"{theirs_side}.{number}.main"
                number += 1
    # Their table of sinusoids is a parameter too, which is not trained.
    parameters = {name: parameter for name, parameter in theirs.named_parameters() if parameter.requires_grad}
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, parameter in ours.named_parameters():
        module, kind = name.rsplit(".", 1)
        found[name] = (parameter, parameters.pop(f"{modules[module]}.{kind}"))
    if parameters:
        raise ValueError(f"without a partner: {', '.join(parameters)}")
    return found


def block_names(ours: str, theirs: str, attention: str) -> dict[str, str]:
    """Module names of a residual block, and of the attention that is part of theirs and stands behind ours."""
    names = {f"{ours}.{mine}": f"{theirs}.{their}" for mine, their in BLOCK.items()}
    if attention:
        names |= {f"{attention}.{mine}": f"{theirs}.attn.{their}" for mine, their in ATTENTION.items()}
    return names


def as_ours(name: str, parameter: Tensor) -> Tensor:
    """Their value in our form: sines before cosines instead of in turn, linear layers instead of 1 x 1 convolutions."""
    if name == "time_embedding.linear_1.weight":
        return torch.cat([parameter[:, ::2], parameter[:, 1::2]], dim=1)
    return parameter[:, :, 0, 0] if ".to_" in name and parameter.ndim == 4 else parameter


if __name__ == "__main__":
    main()
