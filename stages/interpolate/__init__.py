"""Stage `interpolate`: images between two noises, and between two real images."""
