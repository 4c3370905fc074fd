"""One step of the trainer."""

import itertools

import pytest
import torch
from test_training import run, start

from ddpm.diffusion.blocks import ResnetBlock
from ddpm.training.trainer import DivergedError


def test_every_micro_batch_has_a_dropout_of_its_own() -> None:
    trainer, state = start(1, network={"dropout": 0.5}, config={"micro_batch_images": 2})
    dropped: list[torch.Tensor] = []
    block = next(module for module in state.model.modules() if isinstance(module, ResnetBlock))
    block.conv2.register_forward_pre_hook(lambda _, inputs: dropped.append(inputs[0] == 0))
    run(trainer, state, steps=2)
    assert len(dropped) == 4
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(dropped, 2))


def test_a_loss_of_more_than_ten_times_the_first_is_divergence() -> None:
    _, state = start(1)
    state.losses, state.unread = [1.0] * 50, [torch.tensor(9.9)] * 50
    state.read_losses()
    state.unread = [torch.tensor(10.1)] * 50
    with pytest.raises(DivergedError, match=r"10\.1"):
        state.read_losses()
