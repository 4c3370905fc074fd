"""Stage `gan`: images to the weights of a generator."""
