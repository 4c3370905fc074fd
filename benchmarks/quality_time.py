"""Quality against time: samplers and numbers of steps with the model of the last run.

Run `python -m benchmarks.quality_time` after `dvc repro`. It writes `benchmarks/results/quality_time.json`, which the
page shows, and prints the same as a table. `--only quality` and `--only timing` do half of it each, the second for the
rows that the first has written, because times want the machine for themselves and KID doesn't. Images that are drawn
stay in `.cache/quality_time`, so that an interrupted run continues; remove the folder when done.

Quality: each row draws images of the same numbers, so from the same x_T, with another seed than the pipeline's. Written
are KID to the held-out images; `kid_difference`, which is that less the KID of 1,000 ancestral steps; and LPIPS to what
1,000 steps of DDIM make of the same x_T, for samplers that add no noise.

The pick is the row with the fewest evaluations that is not measurably worse than 1,000 ancestral steps (the interval of
`kid_difference` reaches down to 0 or below), and whose sampler isn't with any larger number of steps either: one lucky
row among many doesn't count. Of two with as many evaluations it is the one with the lower KID. What half the interval
spans, a row may be worse without being noticed. The pick is drawn once more in float32 and compared with itself.

Timing: 64 images, from noise to pixels, all rows in turn, several times round, so that a busy moment falls on all.
1,000 ancestral steps take their turn in the first round alone, and as many of DDIM, which take as long, not at all.
"""

import argparse
import functools
import hashlib
import json
import platform
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm.devices.precision import Precision
from ddpm.evaluation.estimates import mean
from ddpm.evaluation.metrics import kid, kid_difference
from ddpm.evaluation.perceptual import load_lpips, pair_distances, pooled_features
from ddpm.images import to_model_range
from ddpm.sampling.samplers import SamplerConfig, SamplerName
from ddpm.sampling.timesteps import Spacing
from stages.kit.params import Params, read_params
from stages.kit.progress import progress
from stages.sample.draw import Drawing, draw_chunks, prepare
from stages.shared.files.formats import read_safetensors, write_json

ROOT = Path(__file__).parents[1]
FILE = ROOT / "benchmarks/results/quality_time.json"
SEED = 1
TIMED = 64
"""Images that are timed, as many as the report drew."""
DRAWS = r"ddpm\.(?!evaluation\.).*|stages\.(sample\.draw|shared\.model)"
"""The modules that decide what an image is; after a change of another one the images drawn before are good still."""


@dataclass(frozen=True)
class Row:
    """One way of sampling."""

    sampler: SamplerName
    steps: int
    spacing: Spacing = "trailing"
    precision: Precision = "auto"


REFERENCE, CONVERGED = Row("ancestral", 1000), Row("ddim", 1000)
ROWS = (
    REFERENCE,
    *(Row("ancestral", steps) for steps in (100, 50, 20)),
    CONVERGED,
    *(Row("ddim", steps) for steps in (50, 20, 10)),
    *(Row("dpmpp_2m", steps) for steps in (20, 10, 5)),
    *(Row("dpmpp_2m", steps, "logsnr") for steps in (20, 10)),
    *(Row("dpmpp_3m", steps) for steps in (20, 10, 5)),
    *(Row("dpmpp_2m_sde", steps, "logsnr") for steps in (20, 15, 10)),
    *(Row("dpmpp_3m_sde", steps) for steps in (20, 10)),
    *(Row("dpmpp_3m_sde", steps, "logsnr") for steps in (20, 15, 12, 10)),
    *(Row("unipc", steps) for steps in (20, 10, 5)),
    *(Row("unipc", steps, "logsnr") for steps in (15, 10)),
    *(Row("heun", steps) for steps in (11, 6)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["quality", "timing"], help="(both)")
    parser.add_argument("--images", type=int, default=500, help="of each row (500)")
    parser.add_argument("--pairs", type=int, default=128, help="of these in LPIPS, and of 1,000 DDIM steps (128)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of timing (3)")
    parser.add_argument("--threads", type=int, help="of the CPU (runtime.threads)")
    arguments = parser.parse_args()
    if arguments.only != "timing":
        write_json(FILE, quality(arguments.images, arguments.pairs, arguments.threads))
    if arguments.only != "quality":
        write_json(FILE, timing(json.loads(FILE.read_text()), arguments.repeats, arguments.threads))
    print_table(json.loads(FILE.read_text()))


@functools.cache
def params_at_start() -> Params:
    """The parameters, read once: who edits the file meanwhile shall not change the rows that are left."""
    return read_params()


def drawing_of(row: Row, count: int, threads: int | None) -> Drawing:
    """`count` images by `row`; of the parameters only the model's clipping and variance remain."""
    params = params_at_start()
    own = dict.fromkeys(("clip", "threshold", "variance", "category"))
    sample = {
        **params.mapping("sample"),
        **own,
        **asdict(row),
        "count": count,
        "seed": SEED,
        "eta": 0.0,
        "guidance": 1.0,
        "guide": None,
    }
    runtime = {**params.mapping("runtime"), **({"threads": threads} if threads else {})}
    return prepare(ROOT / "data/model", Params({**params.values, "sample": sample, "runtime": runtime}))


@functools.cache
def drawn(row: Row, count: int, threads: int | None) -> np.ndarray:
    """The images, uint8 `[count, H, W, 3]`, those that are not in the folder drawn now."""
    drawing = drawing_of(row, count, threads)
    code = {name: value for name, value in drawing.identity["code"].items() if re.fullmatch(DRAWS, name)}
    described = json.dumps({**drawing.identity, "code": code}, sort_keys=True)
    folder = ROOT / ".cache/quality_time" / hashlib.sha256(described.encode()).hexdigest()[:16]
    return np.concatenate([np.load(chunk) for chunk in draw_chunks(drawing, folder)])


class Judge:
    """Compares images with held-out ones, with those of `REFERENCE` and with those of `CONVERGED`."""

    def __init__(self, images: int, pairs: int, threads: int | None):
        tensors, metadata = read_safetensors(ROOT / "data/weights/lpips.safetensors")
        self.lpips = load_lpips(tensors, metadata["net"])
        self.images, self.pairs, self.threads = images, min(pairs, images), threads
        self.held_out = pooled_features(self.lpips, to_model_range(np.load(ROOT / "data/images/val.npy")))
        self.reference = pooled_features(self.lpips, self.drawn(REFERENCE))
        self.converged = self.drawn(CONVERGED)

    def drawn(self, row: Row) -> Tensor:
        """Its images, float32 `[count, 3, H, W]`."""
        count = self.pairs if row == CONVERGED else self.images
        return to_model_range(drawn(row, count, self.threads))

    def judged(self, row: Row) -> dict[str, Any]:
        """A line of the file, but for its time."""
        images, sampler = self.drawn(row), SamplerConfig(sampler=row.sampler, steps=row.steps)
        features = pooled_features(self.lpips, images)
        difference = kid_difference(features, self.reference[: len(features)], self.held_out)
        compared = sampler.deterministic and row != CONVERGED
        return {
            **asdict(row),
            "evaluations": sampler.evaluations,
            "kid": asdict(kid(features, self.held_out)),
            "kid_difference": None if row == REFERENCE else asdict(difference),
            "lpips": self.apart(images, self.converged) if compared else None,
            "seconds": None,
        }

    def compared(self, row: Row, other: Row) -> dict[str, Any]:
        """KID of `row` less that of `other`, and LPIPS between their images, number by number."""
        ours, theirs = self.drawn(row), self.drawn(other)
        features = [pooled_features(self.lpips, each) for each in (ours, theirs)]
        difference = kid_difference(features[0], features[1], self.held_out)
        return {"kid_difference": asdict(difference), "lpips": self.apart(ours, theirs)}

    def apart(self, images: Tensor, others: Tensor) -> dict[str, Any]:
        """Mean LPIPS between the first `pairs` of each."""
        return asdict(mean(pair_distances(self.lpips, images[: self.pairs], others[: self.pairs])))


def quality(images: int, pairs: int, threads: int | None) -> dict[str, Any]:
    """All that the file holds but the times, which stay from an earlier run with the same weights."""
    drawing, judge = drawing_of(REFERENCE, 1, threads), Judge(images, pairs, threads)
    rows = [judge.judged(row) for row in ROWS]
    picked = pick(rows)
    found: dict[str, Any] = {
        "model": params_at_start().top.model,
        "weights": drawing.identity["weights"],
        "parameters": json.loads((ROOT / "reports/details/train.json").read_text(encoding="utf-8"))["parameters"],
        "precision": str(drawing.model.precision).removeprefix("torch."),
        "machine": None,
        "torch": torch.__version__,
        "timed_images": TIMED,
        "held_out_images": len(judge.held_out),
        "pick": asdict(picked),
        "less_float32": None,
        "rows": rows,
    }
    if drawing.model.precision != torch.float32:
        again = replace(picked, precision="float32")
        rows.append(judge.judged(again))
        found["less_float32"] = judge.compared(picked, again)
    return with_times(found, json.loads(FILE.read_text()) if FILE.exists() else {})


def pick(rows: Sequence[Mapping[str, Any]]) -> Row:
    """The row that the docstring above picks, at worst `REFERENCE` itself."""

    def passes(row: Mapping[str, Any]) -> bool:
        line = [each for each in rows if each["sampler"] == row["sampler"] and each["spacing"] == row["spacing"]]
        more = [each["kid_difference"] for each in line if each["steps"] >= row["steps"]]
        return all(difference is None or difference["low"] <= 0 for difference in more)

    return row_of(min(filter(passes, rows), key=lambda row: (row["evaluations"], row["kid"]["value"])))


def with_times(found: dict[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """`found` with the times that `earlier` has, if they are of the same weights."""
    if earlier.get("weights") != found["weights"]:
        return found
    seconds = {row_of(row): row["seconds"] for row in earlier["rows"]}
    rows = [{**row, "seconds": seconds.get(row_of(row))} for row in found["rows"]]
    return {**found, "machine": earlier["machine"], "rows": rows}


def row_of(values: Mapping[str, Any]) -> Row:
    """The `Row` that a line of the file is of."""
    return Row(**{key: values[key] for key in asdict(REFERENCE)})


def timing(found: dict[str, Any], repeats: int, threads: int | None) -> dict[str, Any]:
    """`found` with times for all of its rows."""
    drawings = [drawing_of(row_of(row), TIMED, threads) for row in found["rows"]]
    if drawings[0].identity["weights"] != found["weights"]:
        raise SystemExit(f"{FILE} is of other weights than data/model: run --only quality first")
    seconds: list[list[float]] = [[] for _ in drawings]
    rows = zip(map(row_of, found["rows"]), drawings, seconds, strict=True)
    timed = [(row, drawing, measured) for row, drawing, measured in rows if row != CONVERGED]
    turns = timed + (repeats - 1) * [each for each in timed if each[0] != REFERENCE]
    with progress(len(turns), "run") as bar:
        for drawing in drawings[-2:]:
            drawing.images(range(TIMED), lambda *_: None)  # in both precisions: the first call of all takes longer
        for _, drawing, measured in turns:
            started = time.perf_counter()
            drawing.images(range(TIMED), lambda *_: None)
            measured.append(time.perf_counter() - started)
            bar.update()
    lines = [
        {**row, "seconds": summary(measured) if measured else None}
        for row, measured in zip(found["rows"], seconds, strict=True)
    ]
    return {**found, "machine": machine(drawings[0].device), "torch": torch.__version__, "rows": lines}


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    return {
        "median": round(statistics.median(seconds), 3),
        "lowest": round(min(seconds), 3),
        "highest": round(max(seconds), 3),
        "n": len(seconds),
    }


def machine(device: torch.device) -> str:
    """What the times belong to."""
    if device.type != "cpu":
        return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{torch.get_num_threads()} threads of {names[0] if names else platform.processor()}"


def print_table(found: Mapping[str, Any]) -> None:
    print(
        f"| sampler | steps | evaluations | KID | less that of {REFERENCE.steps:,} ancestral steps "
        f"| LPIPS to {CONVERGED.steps:,} DDIM steps | seconds for {found['timed_images']} | n |\n"
        "|---|---:|---:|---|---|---|---:|---:|"
    )
    for row in found["rows"]:
        words = [row[key] for key in ("sampler", "spacing", "precision") if row[key] not in ("trailing", "auto")]
        estimates = " | ".join(shown(row[key]) for key in ("kid", "kid_difference", "lpips"))
        seconds = f"{row['seconds']['median']:.2f}" if row["seconds"] else ""
        print(
            f"| {', '.join(words)} | {row['steps']} | {row['evaluations']} | {estimates} | {seconds} "
            f"| {row['kid']['n']} |"
        )
    less = found["less_float32"] or {}
    print(f"\nThe pick: {row_of(found['pick'])}")
    print("less itself in float32:", ", ".join(f"{name} {shown(estimate)}" for name, estimate in less.items()))


def shown(estimate: Mapping[str, Any] | None) -> str:
    """The value with its interval."""
    return f"{estimate['value']:.4f} ({estimate['low']:.4f} to {estimate['high']:.4f})" if estimate else ""


if __name__ == "__main__":
    main()
