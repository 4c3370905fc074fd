"""Stage `autoencode`: images to latents."""
