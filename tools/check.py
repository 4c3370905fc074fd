"""Whether all stages accept params.yaml: `python -m tools.check`. `dvc repro` asks this before what takes long.

A stage starts it as a process of its own. If the stage imported it, it would depend on the code of all the others.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from ddpm.autoencoder.network import AutoencoderConfig
from ddpm.autoencoder.trainer import AutoencoderRecipe
from ddpm.config import ConfigError
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.diffusion.unet import UNet, UNetConfig
from ddpm.evaluation.likelihood import VariationalBound
from ddpm.gan.networks import GanConfig
from ddpm.gan.trainer import GanRecipe
from ddpm.sampling.samplers import timesteps_of
from ddpm.training.recipe import Recipe, TrainConfig
from ddpm.tuning.tuner import TuneConfig
from stages.evaluate.config import EvaluateConfig
from stages.extract.config import ExtractConfig
from stages.interpolate.methods import METHODS, InterpolateConfig, way
from stages.kit.command import run
from stages.kit.enough import fewest, require_enough
from stages.kit.inception import inception_checked
from stages.kit.params import Params, naming, read_params
from stages.kit.runtime import RuntimeConfig
from stages.likelihood.config import LikelihoodConfig
from stages.sample.draw import guide_file, require_classes
from stages.shared.files.images import image_set
from stages.shared.models.diffusion import ModelSampling, SampleConfig, require_unclipped, sampling
from stages.shared.models.gan import GanSampling, require_no_sampler
from stages.shared.models.tuned import require_stops
from stages.shared.ranking import RankConfig
from stages.train.stage import require_label_dropout
from stages.tune.stage import times_of, tuned_sampling

MODEL: Mapping[str, Mapping[str, type]] = {
    "diffusion": {"network": UNetConfig, "recipe": Recipe, "sampling": ModelSampling},
    "gan": {"network": GanConfig, "recipe": GanRecipe, "sampling": GanSampling},
}
"""The class that reads each part of a model, by its kind."""
AUTOENCODER: Mapping[str, type] = {"network": AutoencoderConfig, "recipe": AutoencoderRecipe}
"""And of its autoencoder, where it learns latents."""
SECTIONS: Mapping[str, type] = {
    "extract": ExtractConfig,
    "diffusion": DiffusionConfig,
    "train": TrainConfig,
    "tune": TuneConfig,
    "sample": SampleConfig,
    "interpolate": InterpolateConfig,
    "rank": RankConfig,
    "evaluate": EvaluateConfig,
    "likelihood": LikelihoodConfig,
    "runtime": RuntimeConfig,
}
"""The class that reads each section."""


def main(*, images: Path | None = None) -> str:
    """Check params.yaml as all stages do that come after `fetch`, and the number of IMAGES in that folder."""
    params = inception_checked(read_params())
    kind, place = params.model().kind, ("models", params.top.model)
    for part, config in MODEL[kind].items():
        params.section(config, *place, part)
    for section, config in SECTIONS.items():
        params.section(config, section)
    sample = params.section(SampleConfig, "sample")
    if kind == "gan":
        require_no_sampler("sample", asdict(sample))
        generator, size = params.section(GanConfig, *place, "network"), params.section(ExtractConfig, "extract").size
        with naming(".".join([*place, "network"])):
            generator.coarsest(size)
    else:
        require_network(params)
        require_steps(params)
        guide_file(sample, params, drawn_by(params))
    require_average(params)
    require_samples(params)
    conditional = params.mapping(*place, "network")["conditional"]
    categories = params.source().categories if conditional else ()
    require_classes(sample, categories, [1] * len(categories))
    if images:
        train, val = (len(np.load(image_set(images, name).array, mmap_mode="r")) for name in ("train", "val"))
        require_enough(params, train, val)
    return "params.yaml is as all stages want it"


def require_network(params: Params) -> None:
    """Fail where the network can't be made for the images, or their latents for it, or these would be clipped.

    Raises:
        ConfigError: naming the section.
    """
    entry, place, size = params.model(), ("models", params.top.model), params.section(ExtractConfig, "extract").size
    if entry.space == "latents":
        params.section(AutoencoderRecipe, *place, "autoencoder", "recipe")
        autoencoder = params.section(AutoencoderConfig, *place, "autoencoder", "network")
        with naming(".".join([*place, "autoencoder.network"])):
            size = autoencoder.latent_shape(size)[1]
        own, sample = own_of(params), asdict(params.section(SampleConfig, "sample"))
        for how in (sampling(own, "sample", **sample), sampling(own, "interpolate")):
            require_unclipped(how.predictor)
    with naming(".".join([*place, "network"])), torch.device("meta"):
        UNet(params.section(UNetConfig, *place, "network"), size)
    require_label_dropout(params)


def own_of(params: Params) -> ModelSampling:
    """How the chosen model is sampled from, where it isn't tuned."""
    return params.section(ModelSampling, "models", params.top.model, "sampling")


def drawn_by(params: Params) -> ModelSampling:
    """How `sample` draws by default: as the chosen model is sampled from, or its tuned weights."""
    own, tune = own_of(params), params.section(TuneConfig, "tune")
    return own if tune.objective == "none" else tuned_sampling(tune, own)


def require_steps(params: Params) -> None:
    """Fail where a sampler takes more steps than the diffusion has, or the diffusion too few for the bound.

    Raises:
        ConfigError: naming the section.
    """
    diffusion, own = params.section(DiffusionConfig, "diffusion"), own_of(params)
    schedule = NoiseSchedule(diffusion, params.model().log_snr_shift)
    VariationalBound(schedule, own.variance)
    tune = params.section(TuneConfig, "tune")
    own = drawn_by(params)
    stops = [] if tune.objective == "none" else tune.stops(times_of(tune, schedule))
    interpolate = params.section(InterpolateConfig, "interpolate")
    sample, models = params.section(SampleConfig, "sample"), f"models.{params.top.model}.sampling"
    chosen = sample.steps or sample.sampler or sample.spacing
    ways = [("sample" if chosen else models, sampling(own, "sample", **asdict(sample)), stops)]
    # Real images are interpolated by these two, whatever `methods` are; all but `native` takes untuned weights.
    for name in dict.fromkeys(["ancestral", "ddim", *(METHODS[method][1] for method in interpolate.methods)]):
        native = name == "native"
        ways.append((models if native else "interpolate", way(own, interpolate, name), stops if native else []))
    for section, each, known in ways:
        try:
            require_stops(known, each.sampler, matched=tune.objective == "matching")
            timesteps_of(each.sampler, schedule, known)
        except ConfigError as error:
            raise ConfigError(f"params.yaml: {section}.{error}") from None


def require_average(params: Params) -> None:
    """Fail where the model is sampled from an average that its training doesn't keep.

    Raises:
        ConfigError: naming those that it keeps.
    """
    model = params.top.model
    decay = params.mapping("models", model, "sampling")["ema_decay"]
    kept = params.mapping("models", model, "recipe")["ema_decays"]
    if decay and decay not in kept:
        raise ConfigError(
            f"params.yaml: models.{model}.sampling.ema_decay = {decay}: must be one of recipe.ema_decays = "
            f"{kept}, or 0, the weights of the last step"
        )


def require_samples(params: Params) -> None:
    """Fail where fewer samples, or pairs of them, are drawn than are shown and compared.

    Raises:
        ConfigError: naming the parameter.
    """
    count, rank = params.section(SampleConfig, "sample").count, params.section(RankConfig, "rank")
    k = params.section(EvaluateConfig, "evaluate").neighbourhood
    if count < fewest(k):
        raise ConfigError(f"params.yaml: sample.count = {count}: evaluate.neighbourhood = {k} needs {fewest(k)}")
    pairs = params.section(InterpolateConfig, "interpolate").pairs
    if pairs < 2:
        raise ConfigError(f"params.yaml: interpolate.pairs = {pairs}: at least 2, whose spread gives the intervals")
    if min(count, rank.samples) < rank.best:
        raise ConfigError(
            f"params.yaml: rank.best = {rank.best}: more than are ranked, by rank.samples = {rank.samples} "
            f"and sample.count = {count}"
        )


if __name__ == "__main__":
    run("tools.check", main)
