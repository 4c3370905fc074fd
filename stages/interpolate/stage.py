"""Stage `interpolate`: images between two noises and between two real images, and how each method's paths run."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ddpm.evaluation.estimates import mean
from ddpm.evaluation.neighbours import nearest
from ddpm.evaluation.path_metrics import detail, path_metrics, rms_error
from ddpm.evaluation.perceptual import IMAGES_AT_ONCE, Metric, load_lpips
from ddpm.images import to_model_range
from ddpm.rng import numpy_stream
from stages.interpolate.methods import Drawn, InterpolateConfig, between_images, between_latents, between_noises
from stages.kit.device import announce, setup
from stages.kit.errors import StageError
from stages.kit.params import Params, read_params
from stages.kit.progress import progress
from stages.kit.runtime import RuntimeConfig
from stages.shared.figures import save_figure, strip_figure
from stages.shared.files.absent import emptied, leave_absent, require_outputs_alone
from stages.shared.files.formats import read_backbone, write_json, write_npy
from stages.shared.files.images import image_set, open_images, require_one_preprocessing
from stages.shared.models.diffusion import Model, SampleConfig, load_model
from stages.shared.models.gan import GanModel, folder_of, is_gan, load_gan
from stages.shared.models.tuned import tuned_or

T = TypeVar("T", np.ndarray, Tensor)

SAMPLERS = {
    "ancestral": "ancestral, fresh",
    "ancestral_shared": "ancestral, shared",
    "ddim": "DDIM",
    "native": "the model's own",
}
NO_ENCODER = "a GAN has no encoder: for an image it knows no noise that it would be made of"
SHOWN = 3
"""Methods between noises in the figure, the first ones."""


def main(
    weights: Path,
    *,
    changes: Annotated[Mapping[str, Any], InterpolateConfig, "interpolate"],
    tuned: Path | None = None,
    gan: Path | None = None,
    latents: Path | None = None,
    backbone: Path | None = None,
    images: Path | None = None,
    samples: Path = Path(),
    details: Path = Path("interpolate.json"),
    figures: Path = Path(),
) -> str:
    """Interpolate between noises with WEIGHTS, the folder that `train` writes or a file of it.

    If the folder TUNED has weights, the methods with the model's own sampler (`native`) take these. For a model of kind
    gan it is the folder GAN that is taken, if it is given, and each path once: it has no sampler. A model of latents
    needs the folder LATENTS, which has the autoencoder.

    `interpolation.npy` in the folder SAMPLES has the frames, uint8 [methods, pairs, frames, H, W, 3], those of a
    conditional diffusion model without a class, of a conditional GAN with one a pair. In the folder FIGURES,
    `interpolation.png` shows the first pair. Given the folder IMAGES of training and held-out images and the BACKBONE
    of LPIPS, held-out images are interpolated too (files in folders `interpolation_real`), and DETAILS measure all
    paths. A GAN can't: it makes images of noise, but finds no noise for an image.
    """
    figure, of_real = figures / "interpolation.png", [folder / "interpolation_real" for folder in (samples, figures)]
    require_outputs_alone(*of_real)
    params = read_params({"interpolate": changes})
    device, config = setup(params), params.section(InterpolateConfig, "interpolate")
    weights = folder_of(weights, gan, params)
    model = load(weights, latents, params, device)
    announce("interpolate", device, model.precision)
    preprocessing = {weights: model.preprocessing}
    at_once = params.section(RuntimeConfig, "runtime").at_once(IMAGES_AT_ONCE)
    real = open_real(backbone, images, preprocessing, config, device, at_once)
    chosen = tuned_or(weights, tuned)
    native = model if chosen == weights else load(chosen, latents, params, device)
    noise = noise_paths(model, native, config, device)
    found: dict[str, Any] = {"noise": {}, "real": {}}
    pictured: dict[str, Drawn] = {}
    if real:
        if isinstance(model, Model):
            pictured = between_images(model, config, model.encoded(to_model_range(real.held_out).to(device)))
        found = measure(real, noise, pictured)
        write_json(details, found if pictured else {**found, "real": {"absent": NO_ENCODER}})
        write_real(real, pictured, found["real"], *of_real)
    write_npy(samples / "interpolation.npy", np.stack([drawn.images for drawn in noise.values()]))
    save_figure(figure, paths_figure(noise, pictured, found, config.frames))
    return f"paths by {len(noise)} methods in {samples}{told(found['noise'])}; see {figure}"


def told(noise: Mapping[str, Any]) -> str:
    """How long the paths of the last method between noises are, where that was measured."""
    if not noise:
        return ""
    *_, last = noise
    return f", those of {last} {noise[last]['length_over_end_distance']['value']:.2f} times as long as straight ones"


def load(weights: Path, latents: Path | None, params: Params, device: torch.device) -> Model | GanModel:
    """The model in WEIGHTS, of whichever kind; of latents the folder LATENTS has the autoencoder."""
    precision = params.section(SampleConfig, "sample").precision
    if is_gan(weights):
        return load_gan(weights, params, device, precision)
    return load_model(weights, params, device, precision, latents=latents)


def noise_paths(
    model: Model | GanModel, native: Model | GanModel, config: InterpolateConfig, device: torch.device
) -> dict[str, Drawn]:
    """The paths between noises of MODEL, those of the methods `native` by NATIVE, which may be tuned."""
    if isinstance(model, Model) and isinstance(native, Model):
        return between_noises(model, native, config, device)
    assert isinstance(model, GanModel)
    return between_latents(model, config)


def write_real(real: "Real", drawn: Mapping[str, Drawn], found: Mapping[str, Any], arrays: Path, figures: Path) -> None:
    """Fill both folders anew with what was drawn between real images, if there is any."""
    if not drawn:
        leave_absent(arrays)
        leave_absent(figures)
        return
    for folder in (arrays, figures):  # by hand they may be one
        emptied(folder)
    write_npy(arrays / "interpolation_real.npy", np.stack([each.images for each in drawn.values()]))
    save_figure(figures / "interpolation_real.png", real_figure(drawn, real.held_out, found))


class Real(NamedTuple):
    """LPIPS, the training images, and the held-out images to interpolate between, uint8 `[2 * pairs, H, W, 3]`."""

    metric: Metric
    train: np.ndarray
    held_out: np.ndarray


def open_real(
    backbone: Path | None,
    images: Path | None,
    model: Mapping[Path, str],
    config: InterpolateConfig,
    device: torch.device,
    at_once: int,
) -> Real | None:
    """What is measured with; `model` has the preprocessing of the images that it draws, LPIPS takes so many `at_once`.

    Raises:
        StageError: one of the paths is missing, what they name doesn't belong together, or is too little.
    """
    if backbone is None and images is None:
        return None
    if backbone is None or images is None:
        raise StageError("--backbone and --images go together")
    (train, train_index), (val, val_index) = image_set(images, "train"), image_set(images, "val")
    seen, unseen = open_images(train, train_index), open_images(val, val_index)
    require_one_preprocessing({train_index: seen.preprocessing, val_index: unseen.preprocessing, **model})
    wanted = 2 * config.pairs
    if config.pairs < 2 or len(unseen.array) < wanted:
        most = f"{len(unseen.array) // 2}: {val} has {len(unseen.array)} images"
        raise StageError(f"params.yaml: interpolate.pairs = {config.pairs}: must be from 2 to {most}")
    tensors, net = read_backbone(backbone)
    metric = Metric(load_lpips(tensors, net).to(device), at_once=at_once)
    chosen = numpy_stream(config.seed, "interpolate: held-out").permutation(len(unseen.array))[:wanted]
    return Real(metric, seen.array, unseen.array[chosen])


def measure(real: Real, noise: Mapping[str, Drawn], images: Mapping[str, Drawn]) -> dict[str, Any]:
    """The metrics of each method between noises and between real images: means over pairs, with a 95 % interval.

    Of the latter also how far the ends of their paths are from those images, in LPIPS and in levels of 255.
    """
    near = iter(training_distances(real, [*noise.values(), *images.values()]))
    found: dict[str, Any] = {"noise": {}, "real": {}}
    with progress(len(noise) + len(images), "method", label="interpolate, lengths") as bar:
        for section, methods in (("noise", noise), ("real", images)):
            for name, drawn in methods.items():
                found[section][name] = measure_one(real.metric, drawn, next(near))
                bar.update()
    for name, drawn in images.items():
        ends = drawn.images[:, [0, -1]].reshape(real.held_out.shape)
        distances, errors = real.metric.pair_distances(ends, real.held_out), rms_error(ends, real.held_out)
        found["real"][name]["reconstruction"] = {"lpips": asdict(mean(distances)), "rmse": asdict(mean(errors))}
    return found


def training_distances(real: Real, methods: list[Drawn]) -> Tensor:
    """LPIPS of first, middle and last frames to the nearest training image, mirrored or not, `[methods, pairs, 3]`."""
    three = np.stack([three_of(drawn.images) for drawn in methods])
    with progress(None, "img", label="interpolate, training images") as bar:

        def on_block(images: int, total: int) -> None:
            bar.total = total
            bar.update(images)

        queries = three.reshape(-1, *three.shape[3:])
        found = nearest(real.metric, queries, real.train, 1, mirror=True, on_block=on_block)
    return torch.from_numpy(found.distances).view(three.shape[:3])


def measure_one(metric: Metric, drawn: Drawn, near: Tensor) -> dict[str, Any]:
    """How far noise and images change along the paths of a method; `near` as above, `[pairs, 3]`."""
    path = path_metrics(metric, drawn.images)
    ends, middle = near[:, [0, 2]].mean(dim=1), near[:, 1]
    nearness = {"ends": ends, "middle": middle, "midpoint_difference": middle - ends}
    return {
        "noise_norm": ends_and_middle(three_of(drawn.noises).flatten(2).norm(dim=2)),
        "detail": ends_and_middle(detail(three_of(drawn.images))),
        "lpips_step": {"mean": float(path.steps.mean()), "largest": float(path.steps.max()), "n": path.steps.numel()},
        "end_distance": asdict(mean(path.end_distance)),
        "largest_over_mean": asdict(mean(path.largest_over_mean)),
        "length_over_end_distance": asdict(mean(path.length_over_end_distance)),
        "nearest_training": {place: asdict(mean(values)) for place, values in nearness.items()},
    }


def three_of(paths: T) -> T:
    """The first, the middle and the last frame: `[pairs, frames, ...]` to `[pairs, 3, ...]`."""
    return paths[:, [0, paths.shape[1] // 2, -1]]


def ends_and_middle(values: Tensor) -> dict[str, float]:
    """Means of `[pairs, 3]`."""
    return {"ends": float(values[:, [0, 2]].mean()), "middle": float(values[:, 1].mean())}


def paths_figure(
    noise: Mapping[str, Drawn], real: Mapping[str, Drawn], found: Mapping[str, Any], frames: int
) -> Figure:
    """The report's figure 4: the first pair of noises by the first `SHOWN` methods, and of images by the first."""
    rows, labels = [], []
    for name in list(noise)[:SHOWN]:
        rows.append(noise[name].images[0])
        labels.append(label(name, found["noise"]))
    groups, headings = [len(rows)], ["between two noises"]
    for name in list(real)[:1]:
        rows.append(real[name].images[0])
        labels.append(real_label(name, found["real"]))
        groups, headings = [*groups, 1], [*headings, "between two real images, which the network has not seen"]
    return strip_figure(np.stack(rows), weights_of(frames), labels, groups, headings)


def label(name: str, found: Mapping[str, Any]) -> str:
    """The method in words, and its numbers."""
    path = next(path for path in ("lerp_vp", "lerp", "slerp") if name.startswith(path))
    sampler = name.removeprefix(path).removeprefix("_")
    words = [path, SAMPLERS[sampler]] if sampler else [path]  # a GAN has no sampler
    if name == "lerp_ancestral":
        words[0] += " (the report's)"
    return "\n".join([*words, *numbers(name, found)])


def numbers(name: str, found: Mapping[str, Any]) -> list[str]:
    """The distance of the ends and the length over it, where they were measured."""
    if not found:
        return []
    ends, length = (found[name][key]["value"] for key in ("end_distance", "length_over_end_distance"))
    return [f"ends {ends:.2f}, length {length:.1f}"]


def real_label(name: str, found: Mapping[str, Any]) -> str:
    """The method between real images in words, and its numbers."""
    words = "slerp\nDDIM inversion" if name == "ddim" else name.replace("encode_", "lerp\nnoise to t = ")
    return "\n".join([words, *numbers(name, found)])


def real_figure(images: Mapping[str, Drawn], held_out: np.ndarray, found: Mapping[str, Any]) -> Figure:
    """The first pair of real images by every method, between the images themselves."""
    first, last, frames = held_out[0], held_out[1], next(iter(images.values())).images.shape[1]
    rows = [np.stack([first, *drawn.images[0], last]) for drawn in images.values()]
    labels = [real_label(name, found) for name in images]
    columns = ["image", *weights_of(frames), "image"]
    return strip_figure(np.stack(rows), columns, labels, [len(rows)], ["between two real images"])


def weights_of(frames: int) -> list[str]:
    """The weight of the second end in each frame."""
    return [f"{index / (frames - 1):.3g}" for index in range(frames)]
