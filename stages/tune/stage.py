"""Stage `tune`: trained weights to weights that draw in one or two evaluations."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from ddpm.config import ConfigError, parse
from ddpm.diffusion.schedule import NoiseSchedule
from ddpm.rng import word
from ddpm.sampling.timesteps import spaced_timesteps
from ddpm.training.recipe import Recipe, TrainConfig
from ddpm.training.trainer import Loop, TrainState
from ddpm.tuning.matching import NOISE_LEVELS, Matcher, MatchState
from ddpm.tuning.tuner import StopBatches, TuneConfig, Tuner
from stages.kit.device import announce, setup
from stages.kit.files import digest
from stages.kit.identity import TRAINING, code_digests, platform_of
from stages.kit.launch import first_process
from stages.kit.params import Params, read_params
from stages.kit.processes import distributed, together
from stages.kit.runtime import RuntimeConfig
from stages.shared.files.absent import nothing_to_do
from stages.shared.files.formats import write_csv, write_json
from stages.shared.files.images import class_numbers, image_set, open_images, require_one_preprocessing
from stages.shared.files.latents import open_latents
from stages.shared.models.diffusion import ModelSampling, load_model, settings_of, weights_file
from stages.shared.models.tuned import STOP_SPACING
from stages.shared.training.jobs import Job, trained, write_weights
from stages.shared.training.loop import LOSS_COLUMNS, loop_job, loss_table, summary

REMEDY = (
    "lower tune.learning_rate, or in matching tune.critic_weight, tune.matching_learning_rate and "
    "tune.fake_score_learning_rate"
)


def main(weights: Path, *, images: Path, tuned: Path, details: Path, losses: Path, latents: Path | None = None) -> str:
    """Tune WEIGHTS, the folder that `train` writes or a file of it, on the training set in the folder IMAGES.

    The folder TUNED gets the weights, DETAILS and LOSSES say how it went. Where `tune.objective` is `none`, there is
    nothing to do, and DETAILS say so. A model of latents needs the folder LATENTS.
    """
    params = read_params()
    config = params.section(TuneConfig, "tune")
    if reason := idle(config, params):
        return nothing_to_do(reason, details, [tuned], {losses: LOSS_COLUMNS})
    with distributed():
        with together():
            trainer, job = prepare(weights, images, latents, config, params)
        announce("tune", trainer.device, trainer.precision)
        with trained(job) as state, together():
            found = summary(state, trainer)
            if first_process():
                averages = dict(zip(trainer.recipe.ema_decays, state.averages, strict=True))
                write_weights(tuned, {0.0: state.model, **averages}, job.settings)
                write_csv(losses, loss_table(state.losses, trainer))
                write_json(details, {**found, **{key: job.settings[key] for key in ("tune", "sampling")}})
    loss = found["loss"]["last_tenth"]
    return f"{found['steps']:,} steps, weights in {tuned}, loss of the last tenth {loss:.4g}; see {losses}"


def idle(config: TuneConfig, params: Params) -> str:
    """Why there is nothing to tune; empty where there is something."""
    if params.model().kind == "gan":
        return f"models.{params.top.model} is a GAN, which draws in one evaluation"
    return "tune.objective is none" if config.objective == "none" else ""


def prepare(
    weights: Path, images: Path, latents: Path | None, config: TuneConfig, params: Params
) -> tuple[Loop[Any, Any], Job[TrainState]]:
    """All that the section `tune` asks for, with a network that begins as the teacher.

    Raises:
        ConfigError: it can't be, with these weights or images.
    """
    device, shared = setup(params), params.section(TrainConfig, "train")
    runtime = params.section(RuntimeConfig, "runtime")
    model, file = load_model(weights, params, device, shared.precision, latents=latents), weights_file(weights, params)
    settings = settings_of(file)
    array, index = image_set(images, "train")
    data, preprocessing = open_images(array, index)
    require_one_preprocessing({weights: model.preprocessing, index: preprocessing})
    encoded = open_latents(latents, len(data), data.shape[1], preprocessing) if model.codec else None
    labels = class_numbers(index, model.classes) if model.classes else None
    times, shown = times_of(config, model.schedule), encoded.array if encoded else data
    recipe = parse(Recipe, settings["recipe"], f"{file}: recipe")

    def batches(stops: list[int], own_recipe: Recipe) -> StopBatches:
        options: dict[str, Any] = {"flip": shared.flip, "seed": word(config.seed, "tune"), "device": device}
        return StopBatches(stops, shown, labels, len(model.classes), model.schedule, own_recipe, **options)

    try:
        own = batches(times[:: config.steps_between], config.recipe(recipe, len(data)))
        tuner = Tuner(config, times, model.network, own, model.schedule, shared, clip=model.own.clip)
        trainer, state = followed(tuner, recipe, batches) if config.objective == "matching" else (tuner, TrainState)
    except ValueError as error:
        raise ConfigError(f"params.yaml: tune: {error}") from None
    described = {
        "tune": {**asdict(config), "stops": config.stops(times), "images": len(data)},
        "sampling": asdict(tuned_sampling(config, model.own)),
    }
    platform = {**platform_of(device), "compile": runtime.compile, "precision": str(trainer.precision)}
    read = {"latents": encoded.digest} if encoded else {}
    identity = {
        "data": {"weights": digest(file), "images": digest(array), "index": digest(index), **read},
        "settings": {**described, "recipe": asdict(recipe), "train": asdict(shared), "clip": model.own.clip},
        "code": code_digests(TRAINING),
        "platform": platform,
    }
    settings = {**settings, **described}
    job = loop_job("tune", model.network.train(), trainer, "tune", settings, identity, runtime, state)
    return trainer, job if trainer is tuner else replace(job, remedy=REMEDY)


def followed(
    tuner: Tuner, trained_recipe: Recipe, batches: Callable[[list[int], Recipe], StopBatches]
) -> tuple[Matcher, Callable[..., TrainState]]:
    """The steps of `tuner` and matching behind them, and their state; `batches` makes those of times and a recipe."""
    schedule, count = tuner.schedule, len(tuner.batches.images)
    fake_recipe = tuner.tune.fake_score_recipe(trained_recipe, count)
    times = spaced_timesteps(schedule, min(NOISE_LEVELS, schedule.steps), STOP_SPACING)

    def state(*arguments: Any, **options: Any) -> MatchState:
        torch.manual_seed(word(tuner.tune.seed, "critic"))
        return MatchState(*arguments, fake_recipe=fake_recipe, critic=tuner.tune.critic_weight > 0, **options)

    return Matcher(tuner, batches(times, fake_recipe), tuner.tune.matching_recipe(trained_recipe, count)), state


def tuned_sampling(config: TuneConfig, untuned: ModelSampling) -> ModelSampling:
    """How tuned weights are sampled from: in `config.evaluations`, the second of two at the middle stop."""
    steps, decay = config.evaluations, config.ema_decay
    return replace(untuned, ema_decay=decay, sampler="consistency", steps=steps, spacing=STOP_SPACING)


def times_of(config: TuneConfig, schedule: NoiseSchedule) -> list[int]:
    """Times from T - 1, falling: every `config.steps_between`-th is one that tuned weights know.

    Raises:
        ConfigError: there are not so many.
    """
    wanted = config.points * config.steps_between
    if wanted > schedule.steps:
        by = f" x tune.teacher_steps = {config.teacher_steps}" if config.steps_between > 1 else ""
        raise ConfigError(
            f"params.yaml: tune.points = {config.points}{by}: must be at most {schedule.steps}, diffusion.steps"
        )
    return spaced_timesteps(schedule, wanted, STOP_SPACING)
