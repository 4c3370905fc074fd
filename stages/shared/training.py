"""One run of training: continued, saved, stopped, and ended in one line by what goes wrong."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from torch import nn

from ddpm.processes import any_process
from ddpm.training.recipe import epoch_images
from ddpm.training.trainer import WINDOW, DivergedError, Loop, TrainState
from stages.kit.errors import StageError
from stages.kit.files import repository_root
from stages.kit.launch import first_process
from stages.kit.processes import fail_together
from stages.kit.progress import progress, stop_request
from stages.kit.resume import step_of
from stages.kit.runtime import RuntimeConfig
from stages.kit.state import WorkingState, working_state

ROWS = 100
"""Rows of the loss table."""
LOSS_COLUMNS = ("epoch", "step", "loss", "learning_rate")


class Job(NamedTuple):
    """What `stage` trains for the model `name`: `network` by `trainer`, whose `recipe` stands there in params.yaml.

    `settings` describe the result, and `identity` without its epochs all that its bytes depend on.
    """

    stage: str
    name: str
    recipe: str
    network: nn.Module
    trainer: Loop[Any, Any]
    settings: Mapping[str, Any]
    identity: Mapping[str, Any]
    runtime: RuntimeConfig


@contextmanager
def trained(job: Job) -> Iterator[TrainState]:
    """Train to the end, from where this run was stopped, or one that needs but more epochs to be this one.

    The block writes what is made of the result. When it ends without an error, the run counts as finished.
    """
    trainer = job.trainer
    # With a constant rate no step depends on the number of epochs.
    lent_steps = trainer.total_steps if trainer.recipe.rate_schedule == "constant" else 0
    root = repository_root() / ".cache" / job.stage
    with working_state(root, job.identity, trainer.epochs, lent_steps) as working:
        with explained(job, working):
            state = TrainState(job.network, trainer.recipe, trainer.device, compiled=job.runtime.compile)
            continue_from(working, state, job)
            fit(job, state, working)
        yield state


def epochs_seen(trainer: Loop[Any, Any], step: int) -> float:
    """How many times the images that an epoch shows were seen before `step`."""
    return step * trainer.recipe.batch_images / epoch_images(trainer.recipe, len(trainer.batches.images))


def continue_from(working: WorkingState, state: TrainState, job: Job) -> None:
    """Load the saved state, if there is one, and say so."""
    saved = working.load()
    if saved is None:
        return
    state.load_state_dict(saved.state)
    if first_process():
        epoch = f"{epochs_seen(job.trainer, state.step):.4g} of the run of {saved.epochs} epochs"
        mixed = f", {saved.mixed}" if saved.mixed else ""
        print(f"{job.stage}: continues at step {state.step}, epoch {epoch}{mixed}", file=sys.stderr)


def fit(job: Job, state: TrainState, working: WorkingState) -> None:
    """Train to the end with a progress bar, saving the state now and then, when told to stop and at the end.

    Training goes on while a state is written; when told to stop and at the end it waits for that.
    """
    trainer, saved_at = job.trainer, time.monotonic()
    images = trainer.recipe.batch_images
    total, done = trainer.total_steps * images, state.step * images
    with stop_request() as stop, progress(total, "img", initial=done, label=job.stage) as bar:
        for _ in trainer.fit(state):
            bar.update(images)
            if state.step % WINDOW == 0:
                state.read_losses()
                bar.set_postfix(loss=f"{np.mean(state.losses[-200:]):.4f}", refresh=False)
            due = first_process() and time.monotonic() - saved_at > job.runtime.save_every_seconds and not working.busy
            if any_process(stop.is_set() or due):
                working.save(state.state_dict())
                saved_at = time.monotonic()
                if any_process(stop.is_set()):
                    working.wait()
                    raise KeyboardInterrupt
        working.save(state.state_dict())
        working.wait()


@contextmanager
def explained(job: Job, working: WorkingState) -> Iterator[None]:
    """Say in one line what to do about a diverging run, or a network that torch can't compile.

    Raises:
        StageError: one of the two.
    """
    try:
        yield
    except DivergedError as error:  # in every process
        fail_together(diverged(error, job, working))
    except RuntimeError as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            reason = str(error).splitlines()[0]
            raise StageError(f"torch can't compile the network: {reason}; set runtime.compile to false") from None
        raise


def diverged(error: DivergedError, job: Job, working: WorkingState) -> str:
    """Where, with which images, where it can be looked at, and what may help."""
    images = ", ".join(str(index) for index in job.trainer.batches.indices(error.step)[:4])
    file = working.latest()
    good = f"step {step_of(file)} in {file}" if file else "none"
    rate = f"{job.recipe}.learning_rate"
    return (
        f"{error}, of training images {images}, ...: the run diverges; "
        f"last good state: {good}; lower {rate}, now {job.trainer.recipe.learning_rate:g}"
    )


def loss_table(losses: list[float], trainer: Loop[Any, Any]) -> pd.DataFrame:
    """At most `ROWS` rows: the mean loss of equally long runs of steps, by what had been seen at their end."""
    rows = []
    for steps in np.array_split(np.arange(len(losses)), min(ROWS, len(losses))):
        done = int(steps[-1]) + 1
        rows.append(
            {
                "epoch": round(epochs_seen(trainer, done), 4),
                "step": done,
                "loss": round(float(np.mean([losses[step] for step in steps])), 6),
                "learning_rate": float(f"{trainer.learning_rate(done - 1):.6g}"),
            }
        )
    return pd.DataFrame(rows)


def summary(state: TrainState, trainer: Loop[Any, Any]) -> dict[str, Any]:
    """The metrics that every training has."""
    last_tenth = state.losses[-max(1, trainer.total_steps // 10) :]
    return {
        "images": len(trainer.batches.images),
        "steps": trainer.total_steps,
        "parameters": sum(parameter.numel() for parameter in state.model.parameters()),
        "loss": {"last_tenth": float(np.mean(last_tenth)), "n": len(last_tenth)},
    }
