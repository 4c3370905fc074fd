"""Training: the step, that it learns what can be learnt, and that a run continued is the run uninterrupted."""

import copy
import io
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from scipy.spatial.distance import cdist, pdist
from support import REPOSITORY
from torch.optim.lr_scheduler import CosineAnnealingLR

from ddpm.config import ConfigError, parse
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import q_sample
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.diffusion.unet import UNet, UNetConfig
from ddpm.drawing.scenes import draw_scene
from ddpm.images import to_uint8
from ddpm.pictures.resizing import Preprocessing, resize
from ddpm.rng import word
from ddpm.sampling.predictor import PredictorConfig, make_predictor
from ddpm.sampling.samplers import ImageNoise, SamplerConfig, run_sampler
from ddpm.training import report
from ddpm.training.batches import Batch, Batches
from ddpm.training.initial import initial_network
from ddpm.training.recipe import Recipe, TrainConfig, ema_decay_at, learning_rate_at
from ddpm.training.trainer import DivergedError, Trainer, TrainState

CPU = torch.device("cpu")
SCHEDULE = NoiseSchedule(DiffusionConfig(steps=1000, schedule="linear", beta_start=1e-4, beta_end=0.02))
NETWORK = {
    "channels": 32, "multipliers": [1, 2], "attention": [], "blocks": 1, "dropout": 0.1, "patch": 1,
    "groups": 2, "conditional": False, "initial": "zero",
}  # fmt: skip
RECIPE = {
    "target": "eps", "weighting": "simple", "weighting_limits": [0.0, 100.0], "timesteps": "uniform",
    "timesteps_mean": 0.0, "timesteps_std": 1.5, "loss": "mean", "batch_images": 4,
    "drop_last": False, "optimizer": "adamw", "learning_rate": 2e-3, "rate_schedule": "cosine", "warmup_steps": 5,
    "weight_decay": 0.0,
    "adam_beta2": 0.99, "ema_decays": [0.9, 0.5], "label_dropout": 0.25,
}  # fmt: skip
COLOURS = np.random.default_rng(0).integers(0, 256, (24, 1, 1, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)


def start(
    epochs: int,
    images: np.ndarray = COLOURS,
    network: dict | None = None,
    config: dict | None = None,
    labels: np.ndarray | None = None,
    *,
    compiled: bool = False,
    **recipe: object,
) -> tuple[Trainer, TrainState]:
    learnt = parse(Recipe, {**RECIPE, **recipe}, "recipe")
    shared = {"flip": True, "clip_norm": 1.0, "micro_batch_images": None, "precision": "float32", **(config or {})}
    batches = Batches(images, labels, 3, SCHEDULE, learnt, flip=bool(shared["flip"]), seed=0, device=CPU)
    trainer = Trainer(batches, SCHEDULE, parse(TrainConfig, shared, "train"), seed=0, epochs=epochs)
    torch.manual_seed(word(0, "weights"))
    shape = parse(UNetConfig, {**NETWORK, **(network or {})}, "network")
    return trainer, TrainState(initial_network(UNet(shape, images.shape[1], classes=3)), learnt, CPU, compiled=compiled)


def run(trainer: Trainer, state: TrainState, steps: int | None = None) -> None:
    for _ in trainer.fit(state):
        if state.step == steps:
            break
    state.read_losses()


def equal(a: TrainState, b: TrainState) -> bool:
    pairs = zip([a.model, *a.averages], [b.model, *b.averages], strict=True)
    return a.losses == b.losses and all(
        torch.equal(one, other) for x, y in pairs for one, other in zip(x.parameters(), y.parameters(), strict=True)
    )


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_continued_run_is_the_uninterrupted_run(optimizer: str) -> None:
    """Also with dropout and flips, through the file format, and in a process that drew other random numbers."""
    trainer, whole = start(2, optimizer=optimizer)
    run(trainer, whole)
    trainer, first = start(2, optimizer=optimizer)
    run(trainer, first, steps=5)
    torch.save(first.state_dict(), file := io.BytesIO())
    torch.randn(100)
    trainer, second = start(2, optimizer=optimizer)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    run(trainer, second)
    assert second.step == whole.step == 12
    assert equal(second, whole)


def test_more_epochs_of_a_constant_rate_continue_the_run() -> None:
    _, straight = start(2, rate_schedule="constant")
    run(start(2, rate_schedule="constant")[0], straight)
    trainer, state = start(1, rate_schedule="constant")
    run(trainer, state)
    run(start(2, rate_schedule="constant")[0], state)
    assert equal(state, straight)


def test_micro_batches_add_up_to_the_batch() -> None:
    whole = start(3, network={"dropout": 0.0})
    parts = start(3, network={"dropout": 0.0}, config={"micro_batch_images": 3})
    run(*whole)
    run(*parts)
    assert [len(places) for places in parts[0].micro_batches] == [3, 1]
    assert np.allclose(whole[1].losses, parts[1].losses, rtol=1e-4)


@pytest.mark.slow
def test_a_compiled_network_takes_the_same_steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # or it would find what the last run has compiled
    smallest = {"channels": 8, "groups": 1, "multipliers": [1], "dropout": 0.0}
    (_, eager), (_, compiled) = runs = [start(1, network=smallest, compiled=compiled) for compiled in (False, True)]
    for trainer, state in runs:
        run(trainer, state, steps=3)
    assert list(tmp_path.rglob("*.cpp"))
    assert np.allclose(eager.losses, compiled.losses, rtol=1e-5)


def test_gaussian_pixels_are_learnt_to_their_known_loss() -> None:
    """Of x_0 ~ N(m, s^2) the best eps is linear in x_t, and its mean error s^2 bar / (s^2 bar + 1 - bar) at each t."""
    deviation, generator = 60 / 127.5, np.random.default_rng(0)
    images = generator.normal(127.5, 60, (2000, 8, 8, 3)).round().clip(0, 255).astype(np.uint8)
    signal = deviation**2 * SCHEDULE.alpha_bar
    optimum = float((signal / (signal + 1 - SCHEDULE.alpha_bar)).mean())
    recipe = {"batch_images": 32, "learning_rate": 4e-3, "warmup_steps": 50}
    trainer, state = start(6, images, network={"dropout": 0.0}, **recipe)
    run(trainer, state)
    assert np.mean(state.losses[-100:]) == pytest.approx(optimum, rel=0.06)
    assert np.mean(state.losses[-100:]) > 0.97 * optimum


@pytest.mark.slow
def test_samples_of_a_network_that_knows_sixteen_images_are_those_images() -> None:
    """Nearer to one of them, by half and more, than any two of them are to each other."""
    shape = Preprocessing(size=32, geometry="center_crop", filter="bilinear")
    scenes = np.stack([resize(np.asarray(draw_scene(0, "church", "train", i).image), shape) for i in range(16)])
    images = scenes.reshape(16, 8, 4, 8, 4, 3).mean((2, 4)).round().astype(np.uint8)
    recipe = {
        "target": "x0", "weighting": "min_snr", "weighting_limits": [0.0, 5.0], "batch_images": 16,
        "learning_rate": 4e-3, "warmup_steps": 50, "ema_decays": [0.99],
    }  # fmt: skip
    trainer, state = start(1400, images, {"channels": 16, "dropout": 0.0}, {"flip": False}, **recipe)
    run(trainer, state)
    predict = make_predictor(Denoiser(state.averages[0], SCHEDULE, "x0"), PredictorConfig())
    sampler = SamplerConfig(sampler="ddim", steps=50)
    noise = ImageNoise(0, "sample", range(32), (3, 8, 8), CPU)
    drawn = to_uint8(run_sampler(sampler, predict, SCHEDULE, noise(), noise))
    distances = cdist(drawn.reshape(32, -1), images.reshape(16, -1))
    assert np.median(distances.min(axis=1)) < pdist(images.reshape(16, -1)).min() / 2
    assert len(set(distances.argmin(axis=1))) >= 10


def test_the_reports_step() -> None:
    """Loss summed and divided by 1000, gradients clipped to 1, AdamW with weight decay at the rate of its epoch."""
    as_reported = {"loss": "sum_per_1000", "rate_schedule": "report", "weight_decay": 1e-4, "adam_beta2": 0.999}
    trainer, state = start(
        30, network={"dropout": 0.0, "initial": "xavier"}, **as_reported, ema_decays=[], drop_last=True
    )
    model = copy.deepcopy(state.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    for step in range(8):
        batch = trainer.batches.micro_batch(step, range(4))
        output = model(q_sample(SCHEDULE, batch.x0, batch.t, batch.eps), batch.t)
        optimizer.zero_grad()
        (torch.nn.functional.mse_loss(output, batch.eps, reduction="none").sum() / 1000).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 + (step * 4 // 24) / 3)
        optimizer.step()
    run(trainer, state, steps=8)
    pairs = zip(state.model.parameters(), model.parameters(), strict=True)
    apart = torch.cat([(ours - theirs).detach().abs().flatten() for ours, theirs in pairs])
    # Adam makes a whole step of a gradient that is mere rounding, so a few may differ.
    assert float(apart.quantile(0.99)) < 1e-5


def values(model: UNet) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_the_optimiser_is_torchs_adamw_of_the_recipe() -> None:
    """Weight decay 0.1 and beta2 0.9, each of which moves the weights by more than twenty times the tolerance."""
    recipe = {"weight_decay": 0.1, "adam_beta2": 0.9, "learning_rate": 1e-3, "rate_schedule": "constant"}
    trainer, state = start(2, network={"dropout": 0.0}, warmup_steps=0, ema_decays=[], **recipe)

    def by_torch(**changes: object) -> torch.Tensor:
        model = copy.deepcopy(first)
        options = {"lr": 1e-3, "weight_decay": 0.1, "betas": (0.9, 0.9), **changes}
        optimizer = torch.optim.AdamW(model.parameters(), **options)
        for step in range(8):
            batch = trainer.batches.micro_batch(step, range(4))
            optimizer.zero_grad()
            output = model(q_sample(SCHEDULE, batch.x0, batch.t, batch.eps), batch.t)
            torch.nn.functional.mse_loss(output, batch.eps).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1)
            optimizer.step()
        return values(model)

    first = copy.deepcopy(state.model)
    run(trainer, state, steps=8)
    found = values(state.model)

    def apart(other: torch.Tensor) -> float:
        return float((found - other).abs().quantile(0.9))  # of a gradient that is rounding Adam makes a whole step

    assert apart(by_torch()) < 1e-6
    assert apart(by_torch(weight_decay=0.0)) > 2e-5
    assert apart(by_torch(betas=(0.9, 0.999))) > 2e-5


def test_the_reports_rate_is_its_warm_up_and_torchs_cosine_behind_it() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=2.0)
    cosine = CosineAnnealingLR(optimizer, T_max=150)
    expected = [1 + epoch / 15 for epoch in range(16)]  # then at 2, and so on
    for _ in range(16, 150):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        cosine.step()
    assert [report.rate(epoch, 150) for epoch in range(150)] == pytest.approx(expected, abs=1e-9)
    assert expected[15] == expected[16] == 2
    assert expected[-1] > 0.04  # it ends before it is down


def test_learning_rate_rises_then_falls_to_nothing() -> None:
    recipe = parse(Recipe, {**RECIPE, "learning_rate": 1e-3, "warmup_steps": 10}, "recipe")
    rates = [learning_rate_at(recipe, step, 1, 400) for step in range(101)]
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == rates[10] == pytest.approx(1e-3)
    assert rates[55] == pytest.approx(5e-4)
    assert rates[100] == pytest.approx(0)


@pytest.mark.parametrize("target", ["eps", "v", "x0"])
def test_every_target_and_weighting_is_learnt(target: str) -> None:
    """On the same noise, before and after."""
    for weighting in ("simple", "min_snr", *(["snr_plus_one"] if target != "eps" else [])):
        trainer, state = start(40, target=target, weighting=weighting, network={"channels": 16, "dropout": 0.0})
        unseen = [trainer.batches.micro_batch(step, range(4)) for step in range(1000, 1040)]

        def loss(trainer: Trainer = trainer, state: TrainState = state, unseen: list[Batch] = unseen) -> float:
            with torch.no_grad():
                return float(torch.stack([trainer.losses(state, batch).mean() for batch in unseen]).mean())

        before = loss()
        run(trainer, state)
        assert loss() < 0.9 * before, weighting


def test_a_weight_without_limit_is_refused() -> None:
    """SNR + 1 for x_0 is 1 + 1 / SNR for eps: 25,000 at the end of the linear schedule."""
    for changes in ({"weighting": "snr_plus_one"}, {"weighting": "min_snr", "weighting_limits": [0.01, 5.0]}):
        with pytest.raises(ConfigError, match=r"with target = eps.*take target x0 or v") as error:
            parse(Recipe, {**RECIPE, **changes}, "recipe")
        assert "\n" not in str(error.value)
    parse(Recipe, {**RECIPE, "weighting": "min_snr", "weighting_limits": [0.0, 5.0]}, "recipe")
    with pytest.raises(ConfigError, match="the least weight is above the greatest"):
        parse(Recipe, {**RECIPE, "weighting_limits": [6.0, 5.0]}, "recipe")


def test_labels_reach_the_network_and_some_are_dropped() -> None:
    labels = np.arange(24) % 3
    trainer, state = start(40, labels=labels, network={"conditional": True, "dropout": 0.0})
    seen = [trainer.batches.micro_batch(step, range(4)) for step in range(200)]
    given = np.concatenate([batch.label for batch in seen])
    true = np.concatenate([labels[trainer.batches.indices(step)] for step in range(200)])
    assert set(given[given != true]) == {3}
    assert np.mean(given == 3) == pytest.approx(0.25, abs=0.06)
    before = state.model.class_embedding.weight.clone()
    run(trainer, state, steps=20)
    assert (state.model.class_embedding.weight != before).any(dim=1).all()


def test_averages_weigh_every_step_by_its_age() -> None:
    """Of n steps, k steps ago counts decay^k (1 - decay) / (1 - decay^n), and the initial weights nothing."""
    trainer, state = start(3)
    history: list[list[torch.Tensor]] = []
    for _ in trainer.fit(state):
        history.append([parameter.detach().double().clone() for parameter in state.model.parameters()])
        for average, decay in zip(state.averages, trainer.recipe.ema_decays, strict=True):
            ages = torch.arange(len(history), dtype=torch.float64).flip(0)
            weights = decay**ages / (decay**ages).sum()
            for *past, mean in zip(*history, average.parameters(), strict=True):
                assert torch.allclose(torch.tensordot(weights, torch.stack(past), 1).float(), mean, atol=1e-6)
    assert len(history) == 18


def test_averages_of_tiny_are_different_averages() -> None:
    """Any two of them share less than two thirds of their weight at the end of a run of 10,000 steps."""
    decays = YAML(typ="safe").load(REPOSITORY / "params.yaml")["models"]["tiny"]["recipe"]["ema_decays"]
    profiles = []
    for decay in decays:
        kept = np.array([ema_decay_at(step, decay) for step in range(10_000)])
        profiles.append((1 - kept) * np.append(np.cumprod(kept[:0:-1])[::-1], 1))
        assert profiles[-1].sum() == pytest.approx(1)
        assert (profiles[-1] * np.arange(10_000)[::-1]).sum() == pytest.approx(decay / (1 - decay), rel=0.01)
    for one, other in itertools.combinations(profiles, 2):
        assert np.minimum(one, other).sum() < 2 / 3


@pytest.mark.parametrize("rate", [1e3, 1e30])
def test_a_run_that_diverges_says_at_which_step(rate: float) -> None:
    trainer, state = start(10, learning_rate=rate, warmup_steps=0, config={"clip_norm": float("inf")})
    with pytest.raises(DivergedError, match="loss of step") as error:
        run(trainer, state)
    assert 0 < error.value.step < 60
