"""Images per second and memory of `extract` against torchvision's LSUN: `python -m benchmarks.extraction`.

Builds LMDBs of distinct pictures, cut at random from real photographs, all JPEG or all WebP (5 GB, kept in
`.cache/benchmarks`), then measures each program in a process of its own, all in one run.
"""

import argparse
import contextlib
import functools
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import LSUN
from torchvision.transforms import CenterCrop, Compose, Resize

from ddpm.pictures.codec import MAX_PIXELS
from ddpm.pictures.resizing import Filter
from stages.extract.config import ExtractConfig
from stages.extract.duplicates import find_duplicates
from stages.extract.stage import Lmdb, extract
from stages.kit.progress import progress
from stages.kit.workers import in_order, worker_count
from stages.shared.files.formats import write_csv
from stages.shared.lmdbs import lmdb_path, read_lmdb, write_lmdb

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT.parent / "shared/data/photos_train_lmdb/data.mdb"
CACHE = ROOT / ".cache/benchmarks"
SIZE = 48
TRANSFORM = Compose([Resize(SIZE), CenterCrop(SIZE), np.asarray])  # bilinear


def cut(start: int, encoding: str, count: int) -> list[tuple[bytes, bytes]]:
    """Pictures `start` to `start + count`: parts of photographs at LSUN's size, a short side of 256 px, quality 75."""
    photographs = [value for _, value in read_lmdb(PHOTOS)]
    records = []
    for index in range(start, start + count):
        rng = np.random.default_rng(index)
        with Image.open(io.BytesIO(photographs[rng.integers(len(photographs))])) as image:
            part = rng.uniform(0.6, 1.0)
            width, height = round(image.width * part), round(image.height * part)
            left, top = (int(rng.integers(room + 1)) for room in (image.width - width, image.height - height))
            scale = 256 / min(width, height)
            size = round(width * scale), round(height * scale)
            picture = image.resize(size, Image.Resampling.BICUBIC, (left, top, left + width, top + height))
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, encoding, quality=75, **({"method": 0} if encoding == "webp" else {}))
        records.append((rng.bytes(20).hex().encode(), buffer.getvalue()))
    return records


def built(encoding: str, records: int) -> Path:
    """The folder above an LMDB as torchvision wants it; made once."""
    folder = CACHE / f"{encoding}_{records}"
    file = lmdb_path(folder, "church_outdoor", "train")
    if not file.exists():

        def pictures() -> Iterator[tuple[bytes, bytes]]:
            with progress(records, "images", label=f"building {folder}") as bar:
                for batch in in_order(functools.partial(cut, encoding=encoding, count=100), range(0, records, 100)):
                    yield from batch
                    bar.update(len(batch))

        write_lmdb(file, pictures())
    return folder


def ours(filter_name: Filter, folder: Path, scratch: Path) -> float:
    """What the stage does with training images; the seconds that the search for duplicates takes of it."""
    config = ExtractConfig(
        size=SIZE,
        geometry="center_crop",
        filter=filter_name,
        max_bad_fraction=0.0,
        dedupe="keep",
        max_pixels=MAX_PIXELS,
        truncated="skip",
    )
    target = scratch / "train.npy"
    table = extract([Lmdb(lmdb_path(folder, "church_outdoor", "train"), "church", 0)], target, config, "train")
    write_csv(scratch / "train.csv", table)
    np.save(scratch / "val.npy", np.load(target, mmap_mode="r")[:1])
    started = time.perf_counter()
    find_duplicates(target, scratch / "val.npy", table, table[:1])
    return time.perf_counter() - started


def loop(folder: Path, _: Path) -> None:
    """One process: each image decoded and resized, and nothing kept."""
    images = LSUN(str(folder), classes=["church_outdoor_train"], transform=TRANSFORM)
    for index in range(len(images)):
        images[index]


class Lazy(Dataset[np.ndarray]):
    """torchvision's data set, opened where it is read: an open LMDB can't be handed to a worker."""

    def __init__(self, folder: Path, records: int):
        self.folder, self.records = folder, records
        self.images: Any = None

    def __len__(self) -> int:
        return self.records

    def __getitem__(self, index: int) -> np.ndarray:
        if self.images is None:
            self.images = LSUN(str(self.folder), classes=["church_outdoor_train"], transform=TRANSFORM)
        image: np.ndarray = self.images[index][0]
        return image


def loader(folder: Path, _: Path) -> None:
    """As many workers as there are cores."""
    records = int(folder.name.rpartition("_")[2])
    for _batch in DataLoader(Lazy(folder, records), batch_size=64, num_workers=worker_count()):
        pass


PROGRAMS: dict[str, Callable[[Path, Path], float | None]] = {
    "extract, bilinear": functools.partial(ours, "bilinear"),
    "extract, lanczos (the default)": functools.partial(ours, "lanczos"),
    "torchvision, one process": loop,
    "torchvision, DataLoader": loader,
}


def child(program: str, folder: Path) -> None:
    """What a measured process does: it prints the seconds that the program takes, and those for duplicates apart."""
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        if "torchvision" in program:  # which lists the keys of an LMDB once and keeps them: that isn't measured
            LSUN(str(folder), classes=["church_outdoor_train"])
        started = time.perf_counter()
        duplicates = PROGRAMS[program](folder, Path(scratch)) or 0.0
        print(time.perf_counter() - started - duplicates, duplicates)


def run(program: str, folder: Path, *, watched: bool) -> tuple[list[float], float]:
    """The seconds; and where it is `watched`, which slows it, the most memory of all its processes in MB.

    Pages that processes share are counted once, those of files that are mapped included.
    """
    command = [sys.executable, "-m", "benchmarks.extraction", "--child", program, str(folder)]
    most = 0
    # In a folder of its own: torchvision keeps the keys in the working folder, under one name for several LMDBs.
    with tempfile.TemporaryDirectory() as scratch:
        variables = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = psutil.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=scratch, env=variables
        )
        while watched and process.poll() is None:
            with contextlib.suppress(psutil.Error):
                family = [process, *process.children(recursive=True)]
                most = max(most, sum(member.memory_full_info().pss for member in family))
            time.sleep(0.3)
        return [float(word) for word in process.communicate()[0].split()], most / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], Path(arguments.child[1]))
        return
    print("| records | program | seconds | images/s | times one process | duplicates, seconds | memory, MB |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for records in arguments.records:
        for encoding in ("jpeg", "webp"):
            folder = built(encoding, records)
            with lmdb_path(folder, "church_outdoor", "train").open("rb") as file:
                while file.read(
                    1 << 24
                ):  # from the disk into memory, so that the first program isn't at a disadvantage
                    pass
            found = {program: run(program, folder, watched=False)[0] for program in PROGRAMS}
            for program, (seconds, duplicates) in found.items():
                memory = run(program, folder, watched=True)[1] if "lanczos" in program or records == 10_000 else 0
                print(
                    f"| {records:,} {encoding} | {program} | {seconds:.1f} | {records / seconds:,.0f} "
                    f"| {found['torchvision, one process'][0] / seconds:.2f} "
                    f"| {f'{duplicates:.1f}' if duplicates else ''} | {f'{memory:.0f}' if memory else ''} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
