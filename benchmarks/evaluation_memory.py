"""Time and memory of stage `evaluate` with many samples: `python -m benchmarks.evaluation_memory`, after `dvc repro`.

The samples are made up: the training images of `data/images`, again and again, each time moved by another number of
pixels and lighter. The real images are those of `data/images`. The stage runs as `dvc repro` runs it, in a process of
its own. Memory is the most that this process had resident, Python, torch and mapped pages of files included.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil

from benchmarks.neighbours import CACHE, ROOT, write_images
from stages.shared.files.images import read_index


def run(folder: Path, count: int) -> tuple[float, float]:
    """Seconds and MB of the stage with `count` samples; the outputs go to `folder`."""
    write_images(folder / "samples.npy", count)
    preprocessing = read_index(ROOT / "data/images/train.csv")["preprocessing"].iloc[0]
    table = {"row": range(count), "seed": 0, "preprocessing": preprocessing}
    pd.DataFrame(table).to_csv(folder / "samples.csv", index=False)
    paths = {"samples": folder, "images": ROOT / "data/images", "backbone": ROOT / "data/weights/lpips.safetensors"}
    paths |= {"details": folder / "evaluate.json", "figures": folder}
    options = [str(word) for name, path in paths.items() for word in (f"--{name}", path)]
    start, most = time.perf_counter(), 0
    with subprocess.Popen([sys.executable, "-m", "stages.evaluate", *options], cwd=ROOT) as stage:
        process = psutil.Process(stage.pid)
        while stage.poll() is None:
            most = max(most, process.memory_info().rss)
            time.sleep(0.2)
    if stage.returncode:
        raise SystemExit(stage.returncode)
    return time.perf_counter() - start, most / 1e6


def main() -> None:
    """Print a line of the table for each number of samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[2000, 10000, 50000])
    counts = parser.parse_args().samples
    CACHE.mkdir(parents=True, exist_ok=True)
    print("| samples | time | memory |\n|---:|---:|---:|")
    for count in counts:
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            seconds, memory = run(Path(folder), count)
        print(f"| {count:,} | {seconds:.0f} s | {memory:,.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
