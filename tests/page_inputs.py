"""What the stage `page` reads, made up: numbers, arrays and figures whose words on the page are known."""

import hashlib
import json

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from PIL import Image

from stages.page.publish import PICTURES, PLOTS
from stages.page.stage import main
from stages.shared.figures import WIDTH, save_figure
from stages.shared.files.formats import write_safetensors

MINUS = "\N{MINUS SIGN}"


def estimate(value, n=64):
    return {"value": value, "low": round(value - 0.05, 3), "high": round(value + 0.05, 3), "n": n}


def distances(median, n):
    return {"min": round(median - 0.05, 3), "median": median, "mean": median, "max": round(median + 0.05, 3), "n": n}


def placed(median, n):
    return {**distances(median, n), "low": round(median - 0.02, 3), "high": round(median + 0.02, 3)}


def measured(kid):
    channels = {"red": estimate(2.0), "green": estimate(-3.0), "blue": estimate(-0.0001)}
    return {
        "kid_alexnet": estimate(kid),
        "precision_alexnet": estimate(0.75),
        "recall_alexnet": estimate(0.5, 500),
        "diversity_lpips": estimate(0.25),
        "colour_drift": {"mean": channels, "std": channels, "saturated": channels},
    }


def factor(accuracy, distance):
    seen = {"distance": estimate(distance), "covered": 3}
    return {"classes": 4, "accuracy": estimate(accuracy, 500), "majority": 0.446, "samples": seen, "real": seen}


SPLIT = {
    "n": 4011,
    "images": 4000,
    "bad": 1,
    "dropped": 10,
    "enlarged": 7,
    "images_of": {"church": 4000},
    "encoding": {"jpeg": 2000, "webp": 2011, "png": 0, "other": 0},
    "mode": {"L": 10, "RGB": 4000},
}
SETS = {"samples": 64, "held_out": 500, "left_out": 500}
REPEATED = {"duplicates_in_training": {"exact": 3, "near": 4}, "duplicates_held_out": {"exact": 1, "near": 2}}
MEAN = {"value": 0.1, "low": -0.02, "high": 0.3, "n": 8}
PATH = {
    "noise_norm": {"ends": 83.1, "middle": 58.8},
    "detail": {"ends": 0.1, "middle": 0.09},
    "lpips_step": {"mean": 0.1, "largest": 0.25, "n": 64},
    "end_distance": MEAN,
    "largest_over_mean": MEAN,
    "length_over_end_distance": MEAN,
    "nearest_training": {"ends": MEAN, "middle": MEAN, "midpoint_difference": MEAN},
}
REAL_PATH = {**PATH, "reconstruction": {"lpips": MEAN, "rmse": MEAN}}
DETAILS = {
    "extract": {"train": SPLIT | REPEATED, "val": SPLIT, "near_rms": 8.0},
    "autoencode": {"absent": "the model learns pixels"},
    "train": {
        "images": 4000,
        "steps": 2500,
        "parameters": 3456789,
        "loss": {"last_tenth": 0.0876, "n": 250},
    },
    "gan": {"absent": "models.tiny is a diffusion model"},
    "tune": {"absent": "tune.objective is none"},
    "interpolate": {
        "noise": {"lerp_ancestral": PATH, "slerp_ddim": PATH},
        "real": {"ddim": REAL_PATH, "encode_250": REAL_PATH},
    },
    "rank": {
        "lpips": {"net": "alex", "input_size": 48, "flips": True},
        "best": {**distances(0.2, 6), "flagged": 0},
        "best_unseen": distances(0.3, 6),
        "samples": placed(0.3, 64),
        "held_out": placed(0.25, 500),
        "left_out": placed(0.25, 500),
        "batches": placed(0.6, 1024),
        "batch_means": distances(0.6, 16),
        "best_of_held_out": {name: distances(0.22, 19) for name in ("lowest", "mean", "highest")},
        "percentile": placed(0.8, 64),
        "ratio": {name: placed(0.9, n) for name, n in SETS.items()},
        "copies": {"rate": 0.01, "limit": 0.06, **{name: estimate(0, n) for name, n in SETS.items()}},
    },
    "evaluate": {
        "samples": measured(0.5),
        "real": measured(0.01),
        "samples_to_training": {name: value for name, value in measured(0.48).items() if name.count("alexnet")},
        "held_out_images": 500,
        "training_images": 64,
        "frechet": {
            "fd_alexnet": {"refused": "64 samples and 4,000 real images; the covariance of 1,152 features"},
            "fid_inception": {"refused": "64 samples and 4,000 real images; the covariance of 2,048 features"},
        },
        "factors": {"time": factor(0.99, 0.04), "spire": factor(0.7, 0.04)},
    },
    "likelihood": {
        "bits_per_dim": {name: estimate(2.5, 500) for name in ("total", "prior", "steps", "decoder")},
        "simple_loss": estimate(0.0477, 500),
    },
}
WEIGHTS = b"weights"


def drawn(sampler, steps, kid, **changes):
    """A line of the benchmark."""
    difference = {**estimate(kid - 0.006, 500), "low": round(kid - 0.0123, 4)}
    row = {"sampler": sampler, "steps": steps, "spacing": "trailing", "precision": "auto", "evaluations": steps}
    row |= {"kid": estimate(kid, 500), "kid_difference": difference, "lpips": None}
    return row | {"seconds": {"median": steps / 10, "lowest": 12.1, "highest": 12.6, "n": 3}} | changes


QUALITY = {
    "model": "tiny",
    "weights": hashlib.sha256(WEIGHTS).hexdigest(),
    "parameters": DETAILS["train"]["parameters"],
    "precision": "bfloat16",
    "machine": "2 cores of <some> CPU",
    "torch": "2.14.1",
    "timed_images": 64,
    "held_out_images": 500,
    "pick": {"sampler": "unipc", "steps": 10, "spacing": "logsnr", "precision": "auto"},
    "less_float32": {"kid_difference": estimate(0.0004, 500), "lpips": estimate(0.0021, 128)},
    "rows": [
        drawn("ancestral", 1000, 0.006, kid_difference=None),
        drawn("ancestral", 50, 0.03),
        drawn("unipc", 10, 0.007, spacing="logsnr", lpips=estimate(0.0345, 128)),
        drawn("unipc", 10, 0.007, spacing="logsnr", precision="float32"),
    ],
}


def compared(system, says, seconds, kid, **changes):
    timed = {"seconds": {"median": seconds, "lowest": seconds, "highest": seconds, "n": 3} if seconds else None}
    numbers = {"precision_alexnet": 0.71, "recall_alexnet": 0.83, "kid_efficientnet": 0.54, "minutes": 10.6}
    counts = {"images": 48000, "parameters": 1119148, "evaluations": 20, "seed": 0, "kid_difference": None}
    found = {"kid": estimate(kid, 2000), "copies": estimate(0.01, 2000), "options": []}
    return {"system": system, "says": says, **numbers, **counts, **found, **timed, **changes}


COMPARISON = {
    "machine": "2 cores of <another> CPU",
    "torch": "2.14.1",
    "held_out_images": 2000,
    "rows": [
        compared("ancestral_1000", "DDPM, 1,000 steps", 90.0, 0.01, evaluations=1000),
        compared("default", "default, 20 steps", 1.8, 0.015),
        compared("gan", "GAN, 12 epochs", 0.06, 0.2, evaluations=1, options=["model=gan", "epochs=12"]),
        compared("consistency_2", "consistency", None, 0.1, evaluations=2, kid_difference=estimate(0.09, 2000)),
    ],
}


def of_classes(system, *names, seed=0, **values):
    """A row of the benchmark on classes."""
    numbers = {"kid": estimate(0.02, 1000), "precision": estimate(0.7, 1000), "recall": estimate(0.8, 1000)}
    row = {"system": system, "says": system, "seed": seed, "classes": dict.fromkeys(names, numbers), "seen": 0.95}
    return {**row, "kid_difference": None, "learnt": None, **values}


THREE = ("church", "tower", "bridge")
CLASSES = {
    "rows": [
        of_classes("church", "church", images=24000),
        of_classes("labelled", *THREE, kid_difference=estimate(0.03, 1000), learnt=0.7),
        of_classes("labelled", *THREE, kid_difference=estimate(0.04, 1000), learnt=0.7, seed=1),
        of_classes("unlabelled", *THREE, kid_difference=estimate(0.05, 1000), learnt=0.6),
        of_classes("labelled_more", *THREE, kid_difference=estimate(0.01, 1000), learnt=0.8, copies=estimate(0.0, 64)),
        of_classes("real", *THREE, kid_difference=estimate(-0.02, 1000), learnt=0.9),
    ],
}


def of_size(system, size, seconds, **values):
    """A row of the benchmark on sizes."""
    numbers = {"kid": estimate(0.2, 500), "precision": estimate(0.4, 500), "recall": estimate(0.5, 500)}
    row = {
        "system": system,
        "says": system,
        "seed": 0,
        "size": size,
        "minutes": 20.4,
        "images": 12000,
        "parameters": 1300000,
    }
    row |= {"own": {**numbers, "kid_difference": None}, "small": {**numbers, "kid_difference": None}}
    row |= {"seconds": {"median": seconds, "lowest": seconds, "highest": seconds, "n": 3}, "autoencoder": None}
    return {**row, **values}


LATENT = {"kid": estimate(0.1, 500), "precision": estimate(0.4, 500), "recall": estimate(0.5, 500)}
SIZES = {
    "rows": [
        of_size("tiny_64", 64, 4.0),
        of_size("tiny_128", 128, 32.0),
        of_size(
            "latent_128",
            128,
            4.0,
            own={**LATENT, "kid_difference": estimate(-0.1, 500)},
            small={**LATENT, "kid_difference": estimate(-0.2, 500)},
            autoencoder={
                "kid": {"decoded": estimate(0.03, 250), "real": estimate(0.0, 250)},
                "psnr": estimate(27.0, 500),
            },
        ),
    ],
}


def noise(*shape):
    return np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 8, 8, 3), dtype=np.uint8)


def write_arrays(folder):
    """Images, and what was found about three samples; the second is the nearest."""
    for name, count in (("images/train", 5), ("images/val", 4), ("samples/samples", 3)):
        (folder / name).parent.mkdir(exist_ok=True)
        np.save(folder / f"{name}.npy", noise(count))
    np.save(folder / "samples" / "interpolation.npy", noise(3, 8, 9))
    frames = {"frames": torch.from_numpy(noise(2, 4, 3))}
    write_safetensors(folder / "samples" / "reverse" / "reverse.safetensors", frames, {"timesteps": [999, 500]})
    numbers = {"percentile": 0.4, "p_value": 0.5, "copy_distance": 0.6, "flagged": 0, "held_out_distance": 0.33}
    rows = {"neighbour": 4, "original": 2, "held_out_neighbour": 3}
    sides = {"mirrored": 1, "original_mirrored": 0, "held_out_mirrored": 0}
    table = {"rank": [1, 2, 3], "sample": [1, 0, 2], "distance": [0.21, 0.31, 0.41], **numbers, **rows, **sides}
    pd.DataFrame(table).to_csv(folder / "neighbours.csv", index=False)


def write_figures(folder):
    """A picture of coloured clouds for each figure that the stages draw."""
    folder.mkdir(exist_ok=True)
    for name in PLOTS:
        save_figure(folder / f"{name}.svg", Figure(figsize=(WIDTH, 2)))
    for index, name in enumerate(PICTURES):
        pixels = np.random.default_rng(index).integers(0, 256, (5, 9, 4), dtype=np.uint8)
        pixels[..., 3] = 255
        Image.fromarray(pixels).resize((90, 40 + index)).save(folder / f"{name.partition('.')[0]}.png")


def build_page(folder, details=None, **benchmarks):
    """Write the stage's inputs into `folder`, with changes to details and benchmarks, run it; the folder `reports`."""
    (folder / "details").mkdir(exist_ok=True)
    for stage, values in {**DETAILS, **(details or {})}.items():
        (folder / "details" / f"{stage}.json").write_text(json.dumps(values))
    (folder / "loss.csv").write_text("epoch,step,loss,learning_rate\n5,1250,0.2,0.001\n10,2500,0.1,0.0001\n")
    (folder / "tune_loss.csv").write_text("epoch,step,loss,learning_rate\n4,2000,0.05,0.0001\n8,4000,0.03,0\n")
    (folder / "tuned").mkdir(exist_ok=True)
    for name, made_up in {
        "quality_time": QUALITY,
        "comparison": COMPARISON,
        "classes": CLASSES,
        "sizes": SIZES,
    }.items():
        (folder / f"{name}.json").write_text(json.dumps({**made_up, **benchmarks.get(name, {})}))
    for name in ("model", "latents"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "model" / "ema.safetensors").write_bytes(WEIGHTS)
    (folder / "gan").mkdir(exist_ok=True)
    (folder / "gan_loss.csv").write_text("epoch,step,critic_loss,generator_loss,steep_real,steep_fake\n")
    write_arrays(folder)
    write_figures(folder / "figures")
    main(
        details=folder / "details",
        figures=folder / "figures",
        losses=folder,
        latents=folder / "latents",
        model=folder / "model",
        gan=folder / "gan",
        tuned=folder / "tuned",
        images=folder / "images",
        samples=folder / "samples",
        neighbours=folder / "neighbours.csv",
        benchmarks=folder,
        reports=folder / "reports",
    )
    return folder / "reports"
