"""One run of training: continued, saved, stopped, and ended in one line by what goes wrong."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import nn

from ddpm.devices.processes import any_process
from ddpm.training.diverged import WINDOW, DivergedError
from ddpm.training.epochs import Epochs
from stages.kit.errors import StageError
from stages.kit.files import repository_root
from stages.kit.launch import first_process
from stages.kit.processes import fail_together
from stages.kit.progress import progress, stop_request
from stages.kit.resume import step_of
from stages.kit.runtime import RuntimeConfig
from stages.kit.state import WorkingState, working_state
from stages.shared.files.absent import NOTE
from stages.shared.files.formats import write_safetensors


class State(Protocol):
    """All that a run needs to continue; `step` counts from 0."""

    step: int

    def read_losses(self) -> None:
        """Bring what was measured to the host; fail where the run diverges."""

    def summary(self) -> str:
        """What the progress bar shows."""

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Continue from `state`."""


S = TypeVar("S", bound=State)


class Training(Protocol[S]):
    """The steps of one run over `batches`, `total_steps` of them in so many `epochs`."""

    @property
    def batches(self) -> Epochs:
        """The images of its steps."""

    epochs: int
    total_steps: int

    def fit(self, state: S, /) -> Iterator[S]:
        """Train to the end, yielding after each step."""


@dataclass(frozen=True)
class Job(Generic[S]):
    """What `stage` trains: by `trainer`, from the state that `start` makes.

    `settings` describe the result, and `identity` without its epochs all that its bytes depend on. Up to `lent_steps`
    no step depends on the number of epochs. `remedy` may help where the run diverges.
    """

    stage: str
    start: Callable[[], S]
    trainer: Training[S]
    settings: Mapping[str, Any]
    identity: Mapping[str, Any]
    runtime: RuntimeConfig
    remedy: str
    lent_steps: int = 0


@contextmanager
def trained(job: Job[S]) -> Iterator[S]:
    """Train to the end, from where this run was stopped, or one that needs but more epochs to be this one.

    The block writes what is made of the result. When it ends without an error, the run counts as finished.
    """
    trainer = job.trainer
    root = repository_root() / ".cache" / job.stage
    with working_state(root, job.identity, trainer.epochs, job.lent_steps) as working:
        with explained(job, working):
            state = job.start()
            continue_from(working, state, job)
            fit(job, state, working)
        yield state


def epochs_seen(batches: Epochs, step: int) -> float:
    """How many times the images that an epoch shows were seen before `step`."""
    return step * batches.batch_images / batches.epoch_images


def continue_from(working: WorkingState, state: S, job: Job[S]) -> None:
    """Load the saved state, if there is one, and say so."""
    saved = working.load()
    if saved is None:
        return
    state.load_state_dict(saved.state)
    if first_process():
        epoch = f"{epochs_seen(job.trainer.batches, state.step):.4g} of the run of {saved.epochs} epochs"
        mixed = f", {saved.mixed}" if saved.mixed else ""
        print(f"{job.stage}: continues at step {state.step}, epoch {epoch}{mixed}", file=sys.stderr)


def fit(job: Job[S], state: S, working: WorkingState) -> None:
    """Train to the end with a progress bar, saving the state now and then, when told to stop and at the end.

    Training goes on while a state is written; when told to stop and at the end it waits for that.
    """
    trainer, saved_at = job.trainer, time.monotonic()
    images = trainer.batches.batch_images
    total, done = trainer.total_steps * images, state.step * images
    with stop_request() as stop, progress(total, "img", initial=done, label=job.stage) as bar:
        for _ in trainer.fit(state):
            bar.update(images)
            if state.step % WINDOW == 0:
                state.read_losses()
                bar.set_postfix_str(state.summary(), refresh=False)
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
def explained(job: Job[S], working: WorkingState) -> Iterator[None]:
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


def diverged(error: DivergedError, job: Job[S], working: WorkingState) -> str:
    """Where, with which images, where it can be looked at, and what may help."""
    indices = job.trainer.batches.indices(error.step)[:4]
    images = f", of training images {', '.join(map(str, indices))}, ..." if len(indices) else ""
    file = working.latest()
    good = f"step {step_of(file)} in {file}" if file else "none"
    return f"{error}{images}: the run diverges; last good state: {good}; {job.remedy}"


def write_weights(folder: Path, networks: Mapping[float, nn.Module], settings: Mapping[str, Any]) -> None:
    """Write each network, by the decay of the average that it is, into FOLDER; remove other averages.

    `raw.safetensors` has the last weights, of decay 0, and `ema_<decay>.safetensors` an average. All have `settings`.
    """
    files = {f"ema_{decay}.safetensors" if decay else "raw.safetensors": decay for decay in networks}
    for name, decay in files.items():
        tensors = {key: tensor.contiguous() for key, tensor in networks[decay].state_dict().items()}
        write_safetensors(folder / name, tensors, {**settings, "ema_decay": decay})
    for file in [*folder.glob("raw.safetensors"), *folder.glob("ema_*.safetensors"), *folder.glob(NOTE)]:
        if file.name not in files:
            file.unlink()
