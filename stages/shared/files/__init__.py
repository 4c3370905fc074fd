"""The files that stages write and read: formats, images with their table, latents, and what stands for nothing."""
