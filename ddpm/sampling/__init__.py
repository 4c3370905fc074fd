"""From noise to images: time steps, samplers, interpolation between noises."""
