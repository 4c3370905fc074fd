"""Guidance, clipping and thresholding of the estimate of x_0, by hand."""

import pytest
import torch
from test_samplers import FINE, SCHEDULE, noises

from ddpm.diffusion.denoiser import Denoiser
from ddpm.sampling.predictor import PredictorConfig, make_predictor
from ddpm.sampling.samplers import SamplerConfig, run_sampler


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


def gaussian_denoiser(variance: float) -> Denoiser:
    """The optimal one for data of mean 0 and this variance, where there is no class; of a class they have 0.25."""

    def network(xt: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        signal, noise = FINE.signal_noise(t)
        law = variance if label is None else 0.25
        return signal * law / (signal**2 * law + noise**2) * xt

    return Denoiser(network, FINE, "x0")


@pytest.mark.parametrize("by", ["class", "guide"])
@pytest.mark.parametrize(("weight", "std"), [(1.0, 0.5), (1.5, 0.3344), (2.0, 0.2236), (3.0, 0.1)])
def test_guided_gaussians(by: str, weight: float, std: float) -> None:
    """The guided probability flow is linear: 0.5 and sqrt(1.25) become 0.5^w * 1.25^((1 - w) / 2)."""
    strong, weak = gaussian_denoiser(0.25), gaussian_denoiser(1.25)
    how, xt = PredictorConfig(clip=False, guidance=weight), noises(1)[0]
    if by == "guide":
        predict = make_predictor(strong, how, guide=weak)
    else:
        predict = make_predictor(weak, how, torch.zeros(2, dtype=torch.int64))
    x0 = run_sampler(SamplerConfig(sampler="ddim", steps=2000, spacing="logsnr"), predict, FINE, xt, lambda: xt)
    assert float((x0 / xt).mean()) == pytest.approx(std, rel=0.01)


def test_a_guide_is_asked_for_the_same_class_and_only_within_the_interval() -> None:
    """Outside it a step takes one evaluation."""
    asked, label, xt = [], torch.tensor([1, 2]), noises(1)[0]

    def guide(xt: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        asked.append(label)
        return torch.zeros_like(xt)

    def guided(**changes: float) -> torch.Tensor:
        how = PredictorConfig(clip=False, guidance=2.0, **changes)
        one = Denoiser(lambda xt, *_: torch.ones_like(xt), SCHEDULE, "x0")
        return make_predictor(one, how, label, Denoiser(guide, SCHEDULE, "x0"))(xt, 300)

    ratio = float(SCHEDULE.snr(torch.tensor([300])) ** -0.5)
    outside = [{"guidance_low": ratio + 0.01}, {"guidance_high": ratio - 0.01}]
    assert [float(guided(**changes).mean()) for changes in outside] == [1, 1]
    assert asked == []
    assert float(guided(guidance_low=ratio - 0.01, guidance_high=ratio + 0.01).mean()) == 2
    assert asked[0] is label


def test_an_impossible_interval_of_guidance_is_refused() -> None:
    for low, high in ((-1.0, 1.0), (2.0, 2.0)):
        with pytest.raises(ValueError, match="guidance_low must be at least 0 and below guidance_high"):
            PredictorConfig(guidance_low=low, guidance_high=high)


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
