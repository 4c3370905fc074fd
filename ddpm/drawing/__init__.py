"""The embedded data set: churches, towers and bridges, drawn from random numbers."""
