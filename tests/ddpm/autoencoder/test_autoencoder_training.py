"""Training of an autoencoder: the loss has the optimum that theory gives it, and a continued run is the whole run."""

import io
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddpm.autoencoder.network import Autoencoder, AutoencoderConfig, Posterior
from ddpm.autoencoder.trainer import (
    AutoencoderBatch,
    AutoencoderBatches,
    AutoencoderRecipe,
    AutoencoderTrainer,
    autoencoder_losses,
)  # fmt: skip
from ddpm.config import parse
from ddpm.diffusion.schedule import DiffusionConfig, NoiseSchedule
from ddpm.images import to_model_range
from ddpm.rng import word
from ddpm.training.batches import Batches
from ddpm.training.recipe import Recipe, TrainConfig
from ddpm.training.trainer import TrainState

CPU = torch.device("cpu")
NETWORK = {"channels": 16, "multipliers": [1, 2], "blocks": 1, "patch": 1, "groups": 2, "latent_channels": 4}
RECIPE = {
    "epochs": 2, "reconstruction": "l2", "kl_weight": 1e-3, "batch_images": 4, "learning_rate": 2e-3, "warmup_steps": 3,
    "weight_decay": 0.0, "adam_beta2": 0.99, "ema_decay": 0.9,
}  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8)


def start(images: np.ndarray = IMAGES, micro: int | None = None, **recipe: object) -> tuple:
    learnt = parse(AutoencoderRecipe, {**RECIPE, **recipe}, "recipe")
    config = parse(AutoencoderConfig, NETWORK, "network")
    shared = {"flip": True, "clip_norm": 1.0, "micro_batch_images": micro, "precision": "float32"}
    shape = config.latent_shape(images.shape[1])
    batches = AutoencoderBatches(images, shape, learnt, flip=True, seed=0, device=CPU)
    trainer = AutoencoderTrainer(batches, parse(TrainConfig, shared, "train"), seed=0, epochs=learnt.epochs)
    torch.manual_seed(word(0, "weights"))
    return trainer, TrainState(Autoencoder(config), learnt, CPU)


def run(trainer: AutoencoderTrainer, state: TrainState, steps: int | None = None) -> None:
    for _ in trainer.fit(state):
        if state.step == steps:
            break
    state.read_losses()


class Linear(nn.Module):
    """x_i to a normal law of one latent z_i, and back: w z. The last three of six values have no latent."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Parameter(torch.full((3,), 0.5)), nn.Parameter(torch.full((3,), 0.5))
        self.log_variance = nn.Parameter(torch.zeros(3))

    def forward(self, images: Tensor, eps: Tensor) -> tuple[Tensor, Posterior]:
        seen = images[:, :3]
        wide = [parameter.view(1, 3, 1, 1) for parameter in (self.into, self.out, self.log_variance)]
        law = Posterior(wide[0] * seen, wide[2].expand_as(seen))
        return torch.cat([wide[1] * law.draw(eps), torch.zeros_like(seen)], 1), law


def test_a_linear_autoencoder_is_probabilistic_pca() -> None:
    """Of a direction with variance lam: active if lam > beta, w^2 = lam - beta, posterior variance beta / lam.

    Of 1/2 (x - w z)^2 + beta KL the minima are those of ../shared/notes/generators.md. The loss here has the mean over
    six values and the mean over three latents, so that beta = kl_weight. Data and noise take all signs once, which
    gives a quadratic its expectation exactly.
    """
    variances, beta = torch.tensor([4.0, 1.0, 0.25]), 0.5
    signs = torch.cartesian_prod(torch.tensor([-1.0, 1.0]), torch.tensor([-1.0, 1.0]))
    images = torch.zeros(4, 6, 1, 1)
    images[:, :3, 0, 0] = signs[:, :1] * variances.sqrt()
    eps = signs[:, 1:].expand(4, 3)[:, :, None, None]
    recipe = parse(AutoencoderRecipe, {**RECIPE, "kl_weight": beta}, "recipe")
    model = Linear()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def losses() -> Tensor:
        return autoencoder_losses(images, *model(images, eps), recipe).mean()

    def closure() -> Tensor:
        optimizer.zero_grad()
        losses().backward()
        return losses()

    optimizer.step(closure)
    with torch.no_grad():
        reconstruction, law = model(images, eps)
        without_noise, _ = model(images, torch.zeros_like(eps))
        sampled, plain = ((each - images).square().mean((0, 2, 3))[:3] for each in (reconstruction, without_noise))
        divergence = law.kl().mean((0, 2, 3))
        assert model.out.square().tolist() == pytest.approx([3.5, 0.5, 0], abs=2e-3)
        assert model.log_variance.exp().tolist() == pytest.approx([0.125, 0.5, 1], abs=2e-3)
        assert divergence.tolist() == pytest.approx([0.5 * math.log(8), 0.5 * math.log(2), 0], abs=1e-3)
        assert sampled.tolist() == pytest.approx([beta, beta, 0.25], abs=2e-3)
        assert plain.tolist() == pytest.approx([beta**2 / 4, beta**2, 0.25], abs=2e-3)
        assert (sampled / 2 + beta * divergence).tolist() == pytest.approx([0.76986, 0.42329, 0.125], abs=1e-3)
        assert float(losses()) == pytest.approx((0.76986 + 0.42329 + 0.125) / 3, abs=1e-3)


def test_the_error_is_absolute_or_squared() -> None:
    images, other = torch.zeros(2, 3, 2, 2), torch.full((2, 3, 2, 2), 0.5)
    other[1] *= -2
    law = Posterior(torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1, 1))
    for kind, expected in (("l1", [0.5, 1.0]), ("l2", [0.25, 1.0])):
        recipe = parse(AutoencoderRecipe, {**RECIPE, "reconstruction": kind}, "recipe")
        assert autoencoder_losses(images, other, law, recipe).tolist() == pytest.approx(expected)


def test_a_continued_run_is_the_uninterrupted_run() -> None:
    trainer, whole = start()
    run(trainer, whole)
    trainer, first = start()
    run(trainer, first, steps=3)
    torch.save(first.state_dict(), file := io.BytesIO())
    torch.randn(100)
    trainer, second = start()
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    run(trainer, second)
    assert second.step == whole.step == 8
    assert second.losses == whole.losses
    for one, other in zip(second.averages[0].parameters(), whole.averages[0].parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_step_sees_the_same_in_parts() -> None:
    """So that any number of processes trains on the same images and the same noise."""
    trainer, _ = start()
    whole = trainer.batches.micro_batch(3, range(4))
    parts = [trainer.batches.micro_batch(3, range(first, first + 2)) for first in (0, 2)]
    for one, *others in zip(whole, *parts, strict=True):
        assert torch.equal(one, torch.cat(others))
    assert not torch.equal(whole.eps, trainer.batches.micro_batch(4, range(4)).eps)
    (a, b), loss = (start(micro=micro) for micro in (None, 3)), []
    for each, state in (a, b):
        run(each, state)
        loss.append(state.losses)
    assert np.allclose(*loss, rtol=1e-3)


@pytest.mark.slow
def test_sixteen_images_are_learnt_by_heart() -> None:
    """A peak signal-to-noise ratio above 35 dB, of images with a known gradient and a bar each."""
    rows, columns = np.mgrid[:8, :8] * 30
    images = np.stack([np.stack([rows, columns, np.full((8, 8), 15 * i)], -1) for i in range(16)]).astype(np.uint8)
    trainer, state = start(images, epochs=500, kl_weight=1e-6, batch_images=16, learning_rate=4e-3)
    run(trainer, state)
    x0 = to_model_range(images)
    with torch.inference_mode():
        model = state.averages[0]
        error = (model.decode(model.encode(x0).mean).clamp(-1, 1) - x0).square().mean()
    assert 10 * math.log10(4 / float(error)) > 35


def test_latents_that_are_pixels_are_seen_as_the_pixels_are() -> None:
    """Of the identity autoencoder: the same batches of a denoiser, bit for bit, mirrored or not."""
    schedule = NoiseSchedule(DiffusionConfig(steps=1000, schedule="linear", beta_start=1e-4, beta_end=0.02))
    recipe = parse(
        Recipe,
        {
            "target": "eps", "weighting": "simple", "weighting_limits": [0.0, 5.0],
            "timesteps": "uniform", "timesteps_mean": 0.0, "timesteps_std": 1.0,
            "loss": "mean", "batch_images": 8, "drop_last": False, "optimizer": "adamw", "learning_rate": 1e-3,
            "rate_schedule": "constant", "warmup_steps": 0, "weight_decay": 0.0, "adam_beta2": 0.99, "ema_decays": [],
            "label_dropout": 0.5,
        },
        "recipe",
    )  # fmt: skip
    both = np.stack([to_model_range(IMAGES).numpy(), to_model_range(IMAGES[:, :, ::-1]).numpy()], axis=1)
    labels = np.arange(16) % 3
    streams = [Batches(images, labels, 3, schedule, recipe, flip=True, seed=1, device=CPU) for images in (IMAGES, both)]
    assert streams[0].shape == streams[1].shape == (3, 8, 8)
    for step in range(4):
        for one, other in zip(*(stream.micro_batch(step, range(8)) for stream in streams), strict=True):
            assert torch.equal(one, other)
    plain = Batches(both, labels, 3, schedule, recipe, flip=False, seed=1, device=CPU)
    assert torch.equal(plain.micro_batch(0, range(8)).x0, torch.from_numpy(both[plain.indices(0), 0]))


def test_an_autoencoders_batch_has_the_images_of_its_step() -> None:
    trainer, _ = start()
    batch: AutoencoderBatch = trainer.batches.micro_batch(2, range(4))
    assert (batch.x0.shape, batch.eps.shape) == ((4, 3, 8, 8), (4, 4, 4, 4))
    for image, index in zip(batch.x0, trainer.batches.indices(2), strict=True):
        own = to_model_range(IMAGES[[index]])[0]
        assert torch.equal(image, own) or torch.equal(image, own.flip(2))
