"""Denoising diffusion probabilistic models (Ho et al. 2020, arXiv:2006.11239) as a library of arrays and tensors.

Symbols, everywhere in this package:

    x0          an image, float32 in [-1, 1], `[B, C, H, W]`; stored images are uint8 `[N, H, W, C]`
    t           time step, 0-based: t = 0 has one step of noise, t = T - 1 is almost pure noise; before it alpha_bar = 1
    beta        variance that one step adds; alpha = 1 - beta; alpha_bar = the cumulative product of alpha
    eps         standard normal noise; xt = sqrt(alpha_bar) x0 + sqrt(1 - alpha_bar) eps
    v           sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x0 (Salimans & Ho 2022, arXiv:2202.00512)
    *_images, *_steps, *_epochs   counts of what they name

Packages:

    pictures     photographs to pixels: decoding, resizing, duplicates
    drawing      the embedded data set of drawn buildings
    diffusion    noise schedule, forward process, U-Net, and the denoiser with its loss
    sampling     from noise to images: time steps, samplers, interpolation
    training     batches, recipe and training step; `report`: what only the report's own code does
    tuning       a consistency function from trained weights
    autoencoder  images to latents and back, and its training step
    gan          generator, critic, their losses and training step
    evaluation   LPIPS, distances between sets, nearest neighbours, copies, the variational bound
    devices      number format, memory layout, processes, transfers

`config`, `images` and `rng` are used by all of them. Nothing here reads a file or prints.
"""
