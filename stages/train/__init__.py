"""Stage `train`: images to weights."""
