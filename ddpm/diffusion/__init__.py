"""The diffusion model: noise schedule, forward process and posterior, and the denoiser with its loss."""
