"""Working state of long runs: where it lies, how it is saved, and which states are kept.

It lies in the checkout that the user works in, also when DVC runs the stage in a temporary copy, so that
`dvc exp run --temp` and `--queue` continue too. Each run has a folder with `run.json`, which describes it, `lock`, what
is kept, of training `state.pt`, and at the end an empty file `finished`. Of several processes that train the first
alone reads and writes. No run removes the state of another that is unfinished; of finished ones the last `KEEP` stay.
"""

import errno
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddpm.devices.processes import from_first
from stages.kit.errors import StageError
from stages.kit.files import replacing, write_text
from stages.kit.launch import first_process
from stages.kit.locks import Lock, locked
from stages.kit.memory import out_of_memory
from stages.kit.processes import together
from stages.kit.resume import DAMAGED, Candidate, beginning_anew, described, say, state_to_continue

KEEP = 3
"""How many finished runs' states are kept, and how many unfinished ones without a line about them."""

WANTED = "wanted"
"""The file in a run's folder by which another process says that it waits for the folder."""


class Saved(NamedTuple):
    """A state, the epochs of the run that it was saved by, and what of it was computed otherwise, in words, if any."""

    state: dict[str, Any]
    epochs: int
    mixed: str = ""


class WorkingState:
    """One run's `state.pt` in `folder`; the state that it continues from is `source`, its own or another's."""

    def __init__(self, folder: Path, source: Candidate | None = None):
        self.folder, self.source = folder, source
        self.file = folder / "state.pt"
        self._mixed = ""
        self._writer = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._written = False

    def latest(self) -> Path | None:
        """The file of the last state that was saved, or else loaded; what is being written is waited for."""
        if self._writing:
            wait_for([self._writing])
        return self.file if self._written else self.source and self.source.folder / "state.pt"

    def load(self) -> Saved | None:
        """The last saved state, or else the one to continue from, on the CPU, in every process; None where neither is.

        Raises:
            StageError: it is damaged.
        """
        with together():
            saved = self._read() if first_process() else None
        return from_first(saved)

    def _read(self) -> Saved | None:
        file = self.latest()
        if file is None:
            return None
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            mixed = [state.pop("mixed", "")]
            if self.source and self.source.differs and not self._written:
                mixed.append(f"up to step {state['step']} with {', '.join(self.source.differs)}")
            self._mixed = "; ".join(filter(None, mixed))
            return Saved(state, described(file.parent)["epochs"], self._mixed)
        except DAMAGED as error:
            if out_of_memory(error):  # no damage
                raise
            raise beginning_anew(file, error) from None

    @property
    def busy(self) -> bool:
        """Whether a state is being written."""
        return self._writing is not None and not self._writing.done()

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the saved state: copy it now, write it in the background. A crash leaves the old one.

        Raises:
            OSError: the save before this one, which is waited for, has failed.
        """
        with together():
            if first_process():
                self._settle()
                self._writing = self._writer.submit(self._write, {**_copied(state), "mixed": self._mixed})

    def wait(self) -> None:
        """Return when all is written.

        Raises:
            OSError: it couldn't be.
        """
        with together():
            if first_process():
                self._settle()

    def _settle(self) -> None:
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    def _write(self, state: dict[str, Any]) -> None:
        with replacing(self.file) as temporary:
            torch.save(state, temporary)
        self._written = True

    def close(self) -> None:
        """Wait for the writer, whatever becomes of it."""
        self._writer.shutdown()


def _copied(value: Any) -> Any:
    """The same with every tensor copied to the CPU, as the next step changes them in place."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(each) for each in value)
    return value


@contextmanager
def working_state(root: Path, identity: Mapping[str, Any], epochs: int, lent_steps: int = 0) -> Iterator[WorkingState]:
    """The state under `root` of the run of `epochs` that `identity` describes: its data, settings, code and platform.

    Before the run has one, it is lent that of another, as `state_to_continue` chooses. When the block ends without an
    error, the run is finished.

    Raises:
        StageError: nothing can be written there, or there is a state that can't be taken as it should be.
    """
    run = {"epochs": epochs, "identity": identity}
    with run_folder(root, run, "training the same run", must_last=True) as folder:
        source = None
        with together():
            if first_process():
                (folder / "finished").unlink(missing_ok=True)
                source = state_to_continue(folder, run, lent_steps)
        working = WorkingState(folder, source)
        try:
            yield working
            working.wait()
        finally:
            working.close()
        _finish(folder)


@contextmanager
def parts_folder(root: Path, run: Mapping[str, Any], doing: str) -> Iterator[Path]:
    """`run_folder` for parts of a result. At the end they are removed, unless another process has waited for them.

    It takes what it finds and need not compute again. Then the folder stays as that of a finished run.
    """
    with run_folder(root, run, doing, anew=True) as folder:
        yield folder
        if (folder / WANTED).exists():
            _finish(folder)
        elif first_process():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def run_folder(
    root: Path, run: Mapping[str, Any], doing: str, *, anew: bool = False, must_last: bool = False
) -> Iterator[Path]:
    """The folder under `root` of the run that `run` describes, for this process alone.

    While another process, `doing` the same, has it, wait and say so. With `anew`, and without waiting, the folder of a
    finished run is emptied: whoever waited for it has ended. Where nothing can be written under `root`, as in a
    read-only checkout, it is a folder that lasts no longer than the run.

    Raises:
        StageError: it `must_last`, and nothing can be written there.
    """
    folder = root / hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()[:16]
    with ExitStack() as held:
        with together():
            if first_process():
                try:
                    waited = held.enter_context(locked(folder / "lock", root.name, doing, (folder / WANTED).touch))
                    if anew and not waited and (folder / "finished").exists():
                        _empty(folder)
                    _count_unfinished(folder)
                    write_text(folder / "run.json", json.dumps(run, indent=2) + "\n")
                except OSError as error:
                    if must_last or error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
                        raise StageError(f"{root}: the state of the run can't be kept here: {error}") from None
                    folder = Path(held.enter_context(TemporaryDirectory()))
        yield from_first(folder)


def _count_unfinished(own: Path) -> None:
    """Say how much the states of other unfinished runs take, where there are more than `KEEP`."""
    folders = [each for each in own.parent.iterdir() if each != own and not (each / "finished").exists()]
    sizes = list(filter(None, map(_size, folders)))
    if len(sizes) > KEEP:
        size = f"{sum(sizes) / 1e9:.2g} GB"
        say(own, f"{own.parent} keeps {len(sizes)} other unfinished runs, {size}; remove the folders you don't need")


def _size(folder: Path) -> int:
    with suppress(FileNotFoundError):  # its run has ended meanwhile, and removes it
        return sum(file.stat().st_size for file in kept(folder))
    return 0


def kept(folder: Path) -> list[Path]:
    """The files of a run's folder without those that only describe it."""
    return [file for file in folder.glob("*") if file.suffix in (".pt", ".npy", ".npz")]


def _empty(folder: Path) -> None:
    for file in [folder / "finished", folder / WANTED, *kept(folder)]:
        file.unlink(missing_ok=True)


def _finish(folder: Path) -> None:
    if first_process():
        with suppress(OSError):  # the run has succeeded, and doesn't fail any more
            (folder / "finished").touch()
            _prune(folder.parent)


def _prune(root: Path) -> None:
    """Remove the states of all finished runs but the last `KEEP`, except those that a process has."""
    finished = sorted(root.glob("*/finished"), key=lambda file: file.stat().st_mtime_ns)
    for file in finished[:-KEEP]:
        if release := Lock(file.with_name("lock")).attempt():
            if file.exists():
                shutil.rmtree(file.parent, ignore_errors=True)
                say(file.parent, f"removed {file.parent}: of finished runs the states of the last {KEEP} are kept")
            release()
