"""Time and memory of the search for nearest neighbours against `lpips` pair by pair: `python -m benchmarks.neighbours`.

For 64 samples, after `dvc repro`. The images that are searched are those of `data/images/train.npy`, again and again,
each time moved by another number of pixels and lighter, so that no two are the same: as many as LSUN's church_outdoor
has, in a file on disk (0.9 GB, removed at the end). Mirrored images are searched too. Each measurement has a process of
its own; memory is the most that it had resident during the search, Python, torch and mapped pages of files included.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ddpm.evaluation.neighbours import nearest
from ddpm.evaluation.perceptual import IMAGES_AT_ONCE, Metric, load_lpips
from ddpm.images import Images, to_model_range
from stages.kit.progress import progress
from stages.shared.files.formats import ArrayFile, write_npy_header
from stages.weights.stage import obtain

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache/benchmarks"
TRAIN, SAMPLES = ROOT / "data/images/train.npy", ROOT / "data/samples/samples.npy"


class First:
    """The first images of a file."""

    def __init__(self, images: Images, count: int):
        self.images, self.count = images, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: slice | int) -> np.ndarray:
        return self.images[slice(rows.start, min(rows.stop, self.count)) if isinstance(rows, slice) else rows]


def write_images(path: Path, count: int) -> None:
    """Write `count` different images."""
    originals = np.load(TRAIN)
    with path.open("wb") as file:
        write_npy_header(file, count, originals.shape[1])
        for turn, start in enumerate(range(0, count, len(originals))):
            moved = np.roll(originals[: count - start], (turn // 6, turn % 6), axis=(1, 2))
            file.write(np.minimum(moved, 255 - turn) + np.uint8(turn))


def search(metric: Metric, queries: np.ndarray, images: Images) -> np.ndarray:
    """The distances and rows of the two nearest, `[2, Q, 2]`."""
    with progress(None, "img") as bar:

        def on_block(images: int, total: int) -> None:
            bar.total = total
            bar.update(images)

        found = nearest(metric, queries, images, 2, mirror=True, on_block=on_block)
    return np.stack([found.distances, found.rows])


@torch.no_grad()
def loop(metric: Metric, queries: np.ndarray, images: Images) -> np.ndarray:
    """The same by `lpips` on every pair, many pairs a call."""
    every = to_model_range(images[: len(images)])
    found = []
    with progress(2 * len(queries) * len(images), "pair") as bar:
        for query in to_model_range(queries):
            for block in [*every.split(IMAGES_AT_ONCE), *every.flip(3).split(IMAGES_AT_ONCE)]:
                found.append(metric.model(query.expand_as(block), block).flatten())
                bar.update(len(block))
    nearer = torch.cat(found).view(len(queries), 2, -1).amin(dim=1)
    distances, rows = nearer.sort(dim=1, stable=True)
    return torch.stack([distances[:, :2], rows[:, :2]]).numpy()


PROGRAMS = {"search": search, "loop": loop}


def child(arguments: argparse.Namespace) -> None:
    """What a measured process does: it prints seconds and megabytes, and leaves what it found."""
    program, path, count, result = arguments.child
    torch.set_num_threads(arguments.threads)
    metric = Metric(load_lpips(obtain(arguments.net), arguments.net))
    samples = np.load(SAMPLES)[:64]
    metric.embed(samples[:2])  # once, so that what is set up at the first call isn't measured
    Path("/proc/self/clear_refs").write_text("5")  # forget the most that was resident until now: see proc(5)
    started = time.perf_counter()
    found = PROGRAMS[program](metric, samples, First(ArrayFile(Path(path)), int(count)))
    seconds = time.perf_counter() - started
    np.save(result, found)
    [kilobytes] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(seconds, int(kilobytes) / 1024)


def run(program: str, path: Path, count: int, arguments: argparse.Namespace) -> tuple[float, float, np.ndarray]:
    """Seconds, megabytes and what was found."""
    result = path.with_name("found.npy")
    command = [sys.executable, "-m", "benchmarks.neighbours", *sys.argv[1:]]
    command += ["--child", program, str(path), str(count), str(result)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes, np.load(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="*", default=[1000, 10_000, 126_227])
    parser.add_argument("--net", choices=["alex", "vgg"], default="alex")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments)
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        path = Path(folder, "images.npy")
        write_images(path, max(arguments.images))
        counts = sorted(arguments.images)
        seconds, _, by_loop = run("loop", path, counts[0], arguments)
        million = seconds / (2 * 64 * counts[0]) * 1e6
        print("| images | pairs | search | a million pairs | memory | every pair by `lpips` | times |")
        print("|---:|---:|---:|---:|---:|---:|---:|")
        found = {}
        for count in counts:
            seconds, megabytes, found[count] = run("search", path, count, arguments)
            pairs = 2 * 64 * count
            print(
                f"| {count:,} | {pairs:,} | {seconds:.1f} s | {seconds / pairs * 1e6:.2f} s | {megabytes:.0f} MB "
                f"| {million * pairs / 1e6:,.0f} s{'' if count == counts[0] else ', extrapolated'} "
                f"| {million * pairs / 1e6 / seconds:.0f} |",
                flush=True,
            )
        (distances, rows), (their_distances, their_rows) = found[counts[0]], by_loop
        print(f"\nA million pairs by `lpips`: {million:.0f} s. Of the smallest set, both find the same two nearest:")
        print(
            f"{np.array_equal(rows, their_rows)}; distances differ by {np.abs(distances - their_distances).max():.0e}."
        )


if __name__ == "__main__":
    main()
