"""Guidance, clipping and thresholding of the estimate of x_0, by hand."""

import pytest
import torch
from test_samplers import SCHEDULE, noises

from ddpm.diffusion.denoiser import Denoiser
from ddpm.sampling.predictor import PredictorConfig, make_predictor


@pytest.mark.parametrize("target", ["eps", "v", "x0"])
def test_guidance_mixes_the_outputs_with_the_class_and_without(target: str) -> None:
    """w c + (1 - w) u, whatever the target is (Ho & Salimans 2022)."""
    label, (xt, conditional, unconditional) = torch.tensor([1, 2]), noises(3)

    def network(xt: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        return unconditional if label is None else conditional

    def guided(weight: float, label: torch.Tensor | None = label) -> torch.Tensor:
        how = PredictorConfig(clip=False, guidance=weight)
        return make_predictor(Denoiser(network, SCHEDULE, target), how, label)(xt, 300)

    for weight in (0.0, 1.0, 3.0):
        mixed = weight * conditional + (1 - weight) * unconditional
        expected = Denoiser(lambda *_, mixed=mixed: mixed, SCHEDULE, target)(xt, torch.tensor([300, 300]))
        assert torch.allclose(guided(weight), expected, atol=1e-4)
    assert torch.equal(guided(3.0, None), guided(0.0))


@pytest.mark.parametrize(("clip", "largest"), [(True, [1.0, 0.5]), (False, [4.0, 0.5])])
def test_an_estimate_out_of_range_is_clipped_where_that_is_wanted(clip: bool, largest: list[float]) -> None:
    x0 = torch.linspace(-1, 1, 48).view(1, 3, 4, 4) * torch.tensor([4.0, 0.5]).view(2, 1, 1, 1)
    predict = make_predictor(Denoiser(lambda *_: x0, SCHEDULE, "x0"), PredictorConfig(clip=clip))
    found = predict(noises(1)[0], 500)
    assert found.amax((1, 2, 3)).tolist() == pytest.approx(largest)
    assert (-found).amax((1, 2, 3)).tolist() == pytest.approx(largest)


def test_a_threshold_clips_to_a_quantile_and_scales() -> None:
    """By hand: of the absolute values 0, 0.5, ..., 5 the quantile 0.9 is 4.5; what never exceeds 1 stays."""
    x0 = torch.stack([torch.arange(11) / 2, torch.arange(11) / 20]).view(2, 1, 1, 11)
    predict = make_predictor(Denoiser(lambda *_: x0, SCHEDULE, "x0"), PredictorConfig(clip=False, threshold=0.9))
    found = predict(torch.zeros_like(x0), 500)
    assert torch.allclose(found[0].flatten(), (torch.arange(11) / 2).clamp(max=4.5) / 4.5)
    assert torch.equal(found[1], x0[1])
