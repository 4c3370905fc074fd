"""One run of training or tuning: continued, saved, stopped, ended in one line by what goes wrong, and written."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ddpm.networks.unet import UNet
from ddpm.processes import any_process
from ddpm.training.trainer import WINDOW, DivergedError, Trainer, TrainState
from stages.kit.errors import StageError
from stages.kit.files import repository_root
from stages.kit.launch import first_process
from stages.kit.processes import fail_together
from stages.kit.progress import progress, stop_request
from stages.kit.resume import step_of
from stages.kit.runtime import RuntimeConfig
from stages.kit.state import WorkingState, working_state
from stages.shared.formats import write_safetensors

ROWS = 100
"""Rows of the loss table."""
LOSS_COLUMNS = ("epoch", "step", "loss", "learning_rate")
"""Its columns."""


class Job(NamedTuple):
    """What `stage` trains: `network` by `trainer`, as the model called `name`; `rate` names its learning rate.

    `settings` describe the result, and `identity` without its epochs all that its bytes depend on.
    """

    stage: str
    name: str
    rate: str
    network: UNet
    trainer: Trainer
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


def epochs_seen(trainer: Trainer, step: int) -> float:
    """How many times the images that an epoch shows were seen before `step`."""
    return step * trainer.recipe.batch_images / trainer.recipe.epoch_images(len(trainer.batches.images))


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
    return (
        f"{error}, of training images {images}, ...: the run diverges; "
        f"last good state: {good}; lower {job.rate}, now {job.trainer.recipe.learning_rate:g}"
    )


def write_model(folder: Path, state: TrainState, job: Job) -> None:
    """Write `raw.safetensors`, the last weights, and `ema_<decay>.safetensors`, each average; remove others."""
    averages = zip(job.trainer.recipe.ema_decays, state.averages, strict=True)
    networks = {"raw.safetensors": (0.0, state.model)}
    networks |= {f"ema_{decay}.safetensors": (decay, average) for decay, average in averages}
    for name, (decay, network) in networks.items():
        tensors = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        write_safetensors(folder / name, tensors, {**job.settings, "model": job.name, "ema_decay": decay})
    for file in folder.glob("*.safetensors"):
        if file.name not in networks:
            file.unlink()


def loss_table(losses: list[float], trainer: Trainer) -> pd.DataFrame:
    """At most `ROWS` rows: the mean loss of equally long runs of steps, by what had been seen at their end."""
    rows = []
    for steps in np.array_split(np.arange(len(losses)), min(ROWS, len(losses))):
        done = int(steps[-1]) + 1
        loss, rate = float(np.mean([losses[step] for step in steps])), trainer.learning_rate(done - 1)
        rows.append((round(epochs_seen(trainer, done), 4), done, round(loss, 6), float(f"{rate:.6g}")))
    return pd.DataFrame(rows, columns=LOSS_COLUMNS)


def last_losses(state: TrainState) -> dict[str, float]:
    """The mean loss of the last tenth of the steps, and how many these are."""
    last_tenth = state.losses[-max(1, state.step // 10) :]
    return {"last_tenth": float(np.mean(last_tenth)), "n": len(last_tenth)}
