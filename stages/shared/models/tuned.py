"""Tuned weights: where they are, and the times that they know."""

from collections.abc import Sequence
from pathlib import Path

from ddpm.config import ConfigError
from ddpm.sampling.samplers import SamplerConfig
from ddpm.sampling.timesteps import Spacing

STOP_SPACING: Spacing = "logsnr_trailing"
"""The spacing of the times that tuned weights know."""


def tuned_or(weights: Path, tuned: Path | None) -> Path:
    """The folder TUNED if it has weights, else WEIGHTS."""
    return tuned if tuned and any(tuned.glob("*.safetensors")) else weights


def require_stops(stops: Sequence[int], sampler: SamplerConfig, *, matched: bool) -> None:
    """Fail where weights with these `stops`, or without, can't be drawn from by `sampler`.

    `matched` weights have to stop at all of them: each evaluation makes up for those before it.

    Raises:
        ConfigError: with the sampler or the numbers of steps that they take.
    """
    if (sampler.sampler == "consistency") != bool(stops):
        wanted = "consistency, the only one of tuned weights" if stops else "another: consistency is for tuned weights"
        raise ConfigError(f"sampler = {sampler.sampler}: must be {wanted}; see tune.objective")
    counts = [len(stops)] if matched else [steps for steps in range(1, len(stops) + 1) if len(stops) % steps == 0]
    if stops and (sampler.spacing != STOP_SPACING or sampler.steps not in counts):
        possible = ", ".join(map(str, counts))
        raise ConfigError(
            f"steps = {sampler.steps} with spacing {sampler.spacing}: the tuned weights know {len(stops)} times; "
            f"take spacing {STOP_SPACING} and {possible} steps"
        )
