"""A network, its schedule and how it is sampled from in the words of diffusers, and back."""

import math
import reprlib
from collections.abc import Mapping
from typing import Any

from ddpm.autoencoder.network import AutoencoderConfig
from ddpm.config import ConfigError, parse
from ddpm.diffusion.schedule import DiffusionConfig
from ddpm.diffusion.unet import UNetConfig
from stages.shared.models.diffusion import ModelSampling

TARGETS = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
SAMPLERS = {"DDPMScheduler": "ancestral", "DDIMScheduler": "ddim"}
DDIM_STEPS = 50
"""Of `DDIMPipeline`, where nothing else is asked for; `DDPMPipeline` takes all T."""
VARIANCES = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large"}

FIXED = {
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "center_input_sample": False,
    "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "act_fn": "silu",
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "attn_norm_num_groups": None,
    "class_embed_type": None,
}
"""What our network is, in `UNet2DModel`'s arguments; it knows no other."""
CONVENTIONS = {
    "torch": {"flip_sin_to_cos": False, "freq_shift": 0, "downsample_padding": 1, "norm_eps": 1e-5},
    "tensorflow": {"flip_sin_to_cos": False, "freq_shift": 1, "downsample_padding": 0, "norm_eps": 1e-6},
    "diffusers": {"flip_sin_to_cos": True, "freq_shift": 0, "downsample_padding": 1, "norm_eps": 1e-5},
}
SCHEDULER = {"trained_betas": None, "rescale_betas_zero_snr": False, "thresholding": False, "set_alpha_to_one": True}
"""What our schedule and samplers are, in the arguments of a scheduler; they know no other."""


def unet_arguments(network: UNetConfig, size: int, classes: int, channels: int = 3) -> dict[str, Any]:
    """The arguments of the `UNet2DModel` that takes our weights as they are, for images or latents of `channels`.

    It sees what ours sees behind its first step: `size` / patch positions each way, and `channels` patch^2 numbers.
    """
    attended = network.attended(size)
    channels *= network.patch**2
    return {
        **FIXED,
        **CONVENTIONS[network.conventions],
        "sample_size": size // network.patch,
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": [network.channels * multiplier for multiplier in network.multipliers],
        "layers_per_block": network.blocks,
        "down_block_types": [_block("Down", attention) for attention in attended],
        "up_block_types": [_block("Up", attention) for attention in reversed(attended)],
        "dropout": network.dropout,
        "norm_num_groups": network.groups,
        "attention_head_dim": network.head_channels,
        "num_class_embeds": classes + 1 if network.conditional else None,
    }


def autoencoder_arguments(network: AutoencoderConfig, size: int) -> dict[str, Any]:
    """The arguments of the `AutoencoderKL` that takes our weights, as `unet_arguments`.

    Ours has no 1 x 1 convolutions around the latents; in theirs these can normalise each channel.
    """
    channels, levels = 3 * network.patch**2, len(network.multipliers)
    return {
        "sample_size": size // network.patch,
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": [network.channels * multiplier for multiplier in network.multipliers],
        "layers_per_block": network.blocks,
        "latent_channels": network.latent_channels,
        "norm_num_groups": network.groups,
        "mid_block_add_attention": False,
        "scaling_factor": 1.0,
    }


def _block(side: str, attention: bool) -> str:
    return f"{'Attn' if attention else ''}{side}Block2D"


def scheduler_arguments(diffusion: DiffusionConfig, target: str, how: ModelSampling) -> dict[str, Any]:
    """The arguments of the `DDPMScheduler`. With `trailing`, its strides start at T - 1, as all of ours do."""
    return {
        "num_train_timesteps": diffusion.steps,
        "beta_schedule": SCHEDULES[diffusion.schedule],
        "beta_start": diffusion.beta_start * 1000 / diffusion.steps,
        "beta_end": diffusion.beta_end * 1000 / diffusion.steps,
        "variance_type": f"fixed_{how.variance}",
        "clip_sample": how.clip,
        "prediction_type": TARGETS[target],
        "timestep_spacing": "trailing" if how.spacing.startswith("logsnr") else how.spacing,
    }


def network_of(arguments: Mapping[str, Any]) -> tuple[UNetConfig, int, int]:
    """The network that those arguments describe, the size of its images, and the number of its classes.

    Raises:
        ConfigError: naming an argument that our network can't follow.
    """
    for name, value in FIXED.items():
        if arguments[name] != value:
            raise ConfigError(f"{name} = {arguments[name]!r}: our network has {value!r}")
    known = [name for name, values in CONVENTIONS.items() if values.items() <= arguments.items()]
    if not known:
        found = {name: arguments[name] for name in CONVENTIONS["torch"]}
        raise ConfigError(f"{found}: must be {' or '.join(map(str, CONVENTIONS.values()))}")
    if not isinstance(arguments["sample_size"], int):
        raise ConfigError(f"sample_size = {arguments['sample_size']}: must be a number of pixels")
    patch = math.isqrt(arguments["in_channels"] // 3)
    if arguments["in_channels"] != 3 * patch**2 or arguments["out_channels"] != arguments["in_channels"]:
        both = f"in_channels = {arguments['in_channels']}, out_channels = {arguments['out_channels']}"
        raise ConfigError(f"{both}: must be equal, and 3, or 12, 27, ... for images in patches")
    size, widths = patch * arguments["sample_size"], arguments["block_out_channels"]
    downs, ups = arguments["down_block_types"], arguments["up_block_types"]
    blocks = {_block("Down", attention): attention for attention in (False, True)}
    if not set(downs) <= blocks.keys() or ups != [_block("Up", blocks[name]) for name in reversed(downs)]:
        raise ConfigError(f"down_block_types = {downs}, up_block_types = {ups}: must be {', '.join(blocks)} and alike")
    ladder = [arguments["sample_size"] // 2**level for level in range(len(widths))]
    uneven = [width for width in widths if width % widths[0]]
    if uneven:
        raise ConfigError(f"block_out_channels = {widths}: must be multiples of the first")
    rows = arguments["num_class_embeds"]
    values = {
        "channels": widths[0],
        "multipliers": [width // widths[0] for width in widths],
        "attention": [resolution for resolution, name in zip(ladder, downs, strict=True) if blocks[name]],
        "blocks": arguments["layers_per_block"],
        "dropout": arguments["dropout"],
        "patch": patch,
        "groups": arguments["norm_num_groups"],
        "conditional": rows is not None,
        "initial": "zero",
        "conventions": known[0],
        "head_channels": arguments["attention_head_dim"],
    }
    return parse(UNetConfig, values, "the network"), size, rows - 1 if rows else 0


def diffusion_of(arguments: Mapping[str, Any]) -> tuple[DiffusionConfig, str]:
    """The schedule and the target that a scheduler's arguments describe.

    Raises:
        ConfigError: naming an argument that ours can't follow.
    """
    schedules = {theirs: ours for ours, theirs in SCHEDULES.items()}
    targets = {theirs: ours for ours, theirs in TARGETS.items()}
    for name, known in (("beta_schedule", schedules), ("prediction_type", targets)):
        if arguments[name] not in known:
            raise ConfigError(f"{name} = {arguments[name]!r}: must be one of {', '.join(known)}")
    for name, value in SCHEDULER.items():
        if arguments.get(name, value) != value:
            raise ConfigError(f"{name} = {reprlib.repr(arguments[name])}: ours has {value!r}")
    steps = arguments["num_train_timesteps"]
    values = {
        "steps": steps,
        "schedule": schedules[arguments["beta_schedule"]],
        "beta_start": arguments["beta_start"] * steps / 1000,
        "beta_end": arguments["beta_end"] * steps / 1000,
    }
    return parse(DiffusionConfig, values, "the schedule"), targets[arguments["prediction_type"]]


def sampling_of(arguments: Mapping[str, Any], ema_decay: float) -> ModelSampling:
    """How a scheduler with these arguments samples, `_class_name` among them, from weights averaged with `ema_decay`.

    Raises:
        ConfigError: naming an argument that ours can't follow.
    """
    for name, known in (("_class_name", SAMPLERS), ("variance_type", VARIANCES)):
        if arguments[name] not in known:
            raise ConfigError(f"{name} = {arguments[name]!r}: must be one of {', '.join(known)}")
    if arguments["clip_sample"] and arguments["clip_sample_range"] != 1:
        raise ConfigError(f"clip_sample_range = {arguments['clip_sample_range']}: ours has 1")
    sampler, steps = SAMPLERS[arguments["_class_name"]], arguments["num_train_timesteps"]
    values = {
        "ema_decay": ema_decay,
        "sampler": sampler,
        "steps": min(DDIM_STEPS, steps) if sampler == "ddim" else steps,
        "spacing": arguments["timestep_spacing"],
        "clip": arguments["clip_sample"],
        "variance": VARIANCES[arguments["variance_type"]],
    }
    return parse(ModelSampling, values, "the scheduler")
