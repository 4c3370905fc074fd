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
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import LSUN
from torchvision.transforms import CenterCrop, Compose, Resize

from stages._duplicates import find_duplicates
from stages._io import write_csv
from stages._lmdb import read_lmdb, write_lmdb
from stages._main import progress
from stages._workers import cores, in_order
from stages.extract import ExtractConfig, Lmdb, extract

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT.parent / "shared/data/photos_train_lmdb/data.mdb"
CACHE = ROOT / ".cache/benchmarks"
SIZE = 48
CONFIG = ExtractConfig(size=SIZE, geometry="center_crop", filter="lanczos", max_bad_fraction=0.0, dedupe="report")
TRANSFORM = Compose([Resize(SIZE), CenterCrop(SIZE), np.asarray])


def cut(start: int, encoding: str, count: int) -> list[tuple[bytes, bytes]]:
    """Pictures `start` to `start + count`: parts of photographs at LSUN's size, a short side of 256 px, quality 75."""
    photographs = [value for _, value in read_lmdb(PHOTOS)]
    records = []
    for index in range(start, start + count):
        rng = np.random.default_rng(index)
        with Image.open(io.BytesIO(photographs[rng.integers(len(photographs))])) as image:
            part = rng.uniform(0.6, 1.0)
            width, height = round(image.width * part), round(image.height * part)
            left, top = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
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
    file = folder / "church_outdoor_train_lmdb/data.mdb"
    if not file.exists():

        def pictures() -> Iterator[tuple[bytes, bytes]]:
            with progress(records, "images", label=f"building {folder}") as bar:
                for batch in in_order(functools.partial(cut, encoding=encoding, count=100), range(0, records, 100)):
                    yield from batch
                    bar.update(len(batch))

        write_lmdb(file, pictures())
    return folder


def ours(folder: Path, scratch: Path) -> None:
    """Everything that the stage does with the training images."""
    target = scratch / "train.npy"
    table = extract([Lmdb(folder / "church_outdoor_train_lmdb/data.mdb", "church", 0)], target, CONFIG, "train")
    np.save(scratch / "val.npy", np.load(target, mmap_mode="r")[:1])
    find_duplicates(target, scratch / "val.npy", table, table[:1])
    write_csv(scratch / "train.csv", table)


def loop(folder: Path, _: Path) -> None:
    """One process: each image decoded and resized, and nothing kept."""
    images = LSUN(str(folder), classes=["church_outdoor_train"], transform=TRANSFORM)
    for index in range(len(images)):
        images[index]


class Lazy:
    """torchvision's data set, opened where it is read: an open LMDB can't be handed to a worker."""

    def __init__(self, folder: Path, records: int):
        self.folder, self.records, self.images = folder, records, None

    def __len__(self) -> int:
        return self.records

    def __getitem__(self, index: int) -> np.ndarray:
        if self.images is None:
            self.images = LSUN(str(self.folder), classes=["church_outdoor_train"], transform=TRANSFORM)
        return self.images[index][0]


def loader(folder: Path, _: Path) -> None:
    """As many workers as there are cores."""
    records = int(folder.name.rpartition("_")[2])
    for _batch in DataLoader(Lazy(folder, records), batch_size=64, num_workers=cores()):
        pass


PROGRAMS = {"extract": ours, "torchvision, one process": loop, "torchvision, DataLoader": loader}


def child(program: str, folder: Path) -> None:
    """What a measured process does: its seconds without those of the imports on standard output."""
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        # torchvision lists the keys of an LMDB once and keeps them: that isn't what is measured.
        LSUN(str(folder), classes=["church_outdoor_train"])
        started = time.perf_counter()
        PROGRAMS[program](folder, Path(scratch))
        print(time.perf_counter() - started)


def measure(program: str, folder: Path) -> tuple[float, float]:
    """Seconds, and the greatest memory of the program with all of its processes in MB, shared pages counted once."""
    command = [sys.executable, "-m", "benchmarks.extraction", "--child", program, str(folder)]
    most = 0
    # In a folder of its own: torchvision keeps the keys in the working folder, under one name for several LMDBs.
    with tempfile.TemporaryDirectory() as scratch:
        variables = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = psutil.Popen(command, stdout=subprocess.PIPE, text=True, cwd=scratch, env=variables)
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                family = [process, *process.children(recursive=True)]
                most = max(most, sum(member.memory_full_info().pss for member in family))
            time.sleep(0.2)
    return float(process.stdout.read()), most / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], Path(arguments.child[1]))
        return
    print("| records | program | seconds | images/s | extract is faster by | memory, MB |")
    print("|---|---|---:|---:|---:|---:|")
    for records in arguments.records:
        for encoding in ("jpeg", "webp"):
            folder = built(encoding, records)
            found = {program: measure(program, folder) for program in PROGRAMS}
            for program, (seconds, memory) in found.items():
                ratio = f"{seconds / found['extract'][0]:.2f}"
                print(
                    f"| {records:,} {encoding} | {program} | {seconds:.1f} | {records / seconds:,.0f} "
                    f"| {ratio} | {memory:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
