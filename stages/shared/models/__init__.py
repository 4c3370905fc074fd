"""Weights as something that draws: diffusion models, generators, autoencoders."""
