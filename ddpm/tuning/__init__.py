"""Tuning: a denoiser's trained weights turned into a consistency function, which needs one or two evaluations."""
