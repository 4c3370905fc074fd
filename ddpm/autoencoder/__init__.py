"""The autoencoder whose latents a diffusion model can learn, and its training step."""
