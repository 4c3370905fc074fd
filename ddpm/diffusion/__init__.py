"""The diffusion model: noise schedule, forward process and posterior, the U-Net, and the denoiser with its loss."""
