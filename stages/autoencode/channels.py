"""Whether latents are sound."""

from typing import Any

from ddpm.autoencoder.network import LATENT_STD, Codec, Posterior

DEAD = 0.01
"""Nats: with a smaller mean divergence a channel of the latents says nothing of the image."""
DRIFT = 0.1
"""How far the held-out images' statistics of a channel may be from the training images', in its deviation."""


def told(codec: Codec, law: Posterior) -> dict[str, Any]:
    """What the `law` of held-out images' latents, `[N, C, h, w]`, says of each channel, and what is wrong there."""
    channels = channels_of(codec, law)
    return {"held_out_images": len(law.mean), "channels": channels, "warnings": warnings_of(channels)}


def channels_of(codec: Codec, law: Posterior) -> list[dict[str, float]]:
    """Of each channel of latents: divergence, and statistics of the normalised means."""
    normalised = ((law.mean - codec.mean.cpu()) / codec.scale.cpu()).transpose(0, 1).flatten(1).double()
    deviation = (law.log_variance / 2).exp().mean((0, 2, 3)) / codec.scale.cpu().flatten()
    divergence = law.kl().mean((0, 2, 3))
    rows = []
    for values, noise, nats in zip(normalised, deviation, divergence, strict=True):
        centred = values - values.mean()
        rows.append(
            {
                "kl": float(nats),
                "mean": float(values.mean()),
                "std": float(values.std()),
                "posterior_std_over_std": float(noise) / LATENT_STD,
                "kurtosis": float(centred.pow(4).mean() / centred.square().mean().square()),
                "min": float(values.min()),
                "max": float(values.max()),
            }
        )
    return rows


def warnings_of(channels: list[dict[str, float]]) -> list[str]:
    """Dead channels, and those whose statistics differ between training and held-out images."""
    found = [f"channel {i} is dead: KL {row['kl']:.2g} nats" for i, row in enumerate(channels) if row["kl"] < DEAD]
    for i, row in enumerate(channels):
        if abs(row["mean"]) > DRIFT * LATENT_STD or abs(row["std"] / LATENT_STD - 1) > DRIFT:
            found.append(
                f"channel {i} drifts: on held-out images mean {row['mean']:.2g}, deviation {row['std']:.2g}, "
                f"on training images 0 and {LATENT_STD}"
            )
    return found
