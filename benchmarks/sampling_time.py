"""Seconds for 64 images by sampler and steps, with the model of the last run: `python -m benchmarks.sampling_time`.

Writes `benchmarks/sampling_time.json`, which the report shows. All rows are timed in turn in one run, `REPEATS` times
round, so that a busy moment falls on all of them.
"""

import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

from ddpm.samplers import ImageNoise, SamplerConfig
from stages._io import write_json
from stages._main import progress, setup
from stages._model import SampleConfig, load_model, sampler_config
from stages._params import read_params

ROOT = Path(__file__).parents[1]
IMAGES = 64
REPEATS = 2
ROWS = (("ancestral", 1000), ("ancestral", 100), ("ddim", 50), ("ddim", 20))


def seconds(model: object, config: SamplerConfig, device: torch.device) -> float:
    noise = ImageNoise(0, "sample", range(IMAGES), model.shape, device)
    started = time.perf_counter()
    model.sample(config, noise(), noise).cpu()
    return time.perf_counter() - started


def main() -> None:
    params = read_params()
    device, sample = setup(params), params.section(SampleConfig, "sample")
    model = load_model(ROOT / "data/model", params, device, sample.precision)
    times: dict[tuple[str, int], list[float]] = {row: [] for row in ROWS}
    with progress(REPEATS * len(ROWS), "run") as bar:
        for _ in range(REPEATS):
            for sampler, steps in ROWS:
                config = sampler_config(params, replace(sample, sampler=sampler, steps=steps))
                times[sampler, steps].append(seconds(model, config, device))
                bar.update()
    write_json(
        ROOT / "benchmarks/sampling_time.json",
        {
            "machine": f"{torch.get_num_threads()} threads of {processor()}" if device.type == "cpu" else str(device),
            "torch": torch.__version__,
            "model": params.top.model,
            "images": IMAGES,
            "rows": [
                {
                    "sampler": sampler,
                    "steps": steps,
                    "evaluations": steps,
                    "seconds": round(statistics.median(values), 2),
                    "seconds_min": round(min(values), 2),
                    "seconds_max": round(max(values), 2),
                    "n": REPEATS,
                }
                for (sampler, steps), values in times.items()
            ],
        },
    )


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
