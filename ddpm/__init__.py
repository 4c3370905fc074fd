"""Denoising diffusion probabilistic models (Ho et al. 2020, arXiv:2006.11239) as a library of arrays and tensors.

Symbols, everywhere in this package:

    x0          an image, float32 in [-1, 1], `[B, C, H, W]`; stored images are uint8 `[N, H, W, C]`
    t           time step, 0-based: t = 0 has one step of noise, t = T - 1 is almost pure noise; before it alpha_bar = 1
    beta        variance that one step adds; alpha = 1 - beta; alpha_bar = the cumulative product of alpha
    eps         standard normal noise; xt = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps
    v           sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 (Salimans & Ho 2022, arXiv:2202.00512)
    *_images, *_steps, *_epochs   counts of what they name

Nothing here reads a file or prints.
"""
