"""What the stages have in common that train one network by a `Loop`: the job, the loss table and the metrics."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from ddpm.training.trainer import Loop, TrainState
from stages.kit.runtime import RuntimeConfig
from stages.shared.training.jobs import Job, epochs_seen

ROWS = 100
"""Rows of the loss table."""
LOSS_COLUMNS = ("epoch", "step", "loss", "learning_rate")


def loop_job(
    stage: str,
    network: nn.Module,
    trainer: Loop[Any, Any],
    recipe: str,
    settings: Mapping[str, Any],
    identity: Mapping[str, Any],
    runtime: RuntimeConfig,
    state: Callable[..., TrainState] = TrainState,
) -> Job[TrainState]:
    """The job of `stage`: `network` with its initial weights, by `trainer`, whose recipe is at `recipe` in params.yaml.

    `settings` and `identity` are those of `Job`; `state` makes that of the trainer.
    """
    return Job(
        stage=stage,
        start=partial(state, network, trainer.recipe, trainer.device, compiled=runtime.compile),
        trainer=trainer,
        settings=settings,
        identity=identity,
        runtime=runtime,
        remedy=f"lower {recipe}.learning_rate, now {trainer.recipe.learning_rate:g}",
        # With a constant rate no step depends on the number of epochs.
        lent_steps=trainer.total_steps if trainer.recipe.rate_schedule == "constant" else 0,
    )


def loss_table(losses: list[float], trainer: Loop[Any, Any]) -> pd.DataFrame:
    """At most `ROWS` rows: the mean loss of equally long runs of steps, by what had been seen at their end."""
    rows = []
    for steps in np.array_split(np.arange(len(losses)), min(ROWS, len(losses))):
        done = int(steps[-1]) + 1
        rows.append(
            {
                "epoch": round(epochs_seen(trainer.batches, done), 4),
                "step": done,
                "loss": round(float(np.mean([losses[step] for step in steps])), 6),
                "learning_rate": float(f"{trainer.learning_rate(done - 1):.6g}"),
            }
        )
    return pd.DataFrame(rows, columns=list(LOSS_COLUMNS))


def summary(state: TrainState, trainer: Loop[Any, Any]) -> dict[str, Any]:
    """The metrics that every training of one network has."""
    last_tenth = state.losses[-max(1, trainer.total_steps // 10) :]
    return {
        "images": len(trainer.batches.images),
        "steps": trainer.total_steps,
        "parameters": sum(parameter.numel() for parameter in state.model.parameters()),
        "loss": {"last_tenth": float(np.mean(last_tenth)), "n": len(last_tenth)},
    }
