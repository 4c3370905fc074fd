"""Stage `likelihood`: the model on held-out images, by noise level and in bits per dimension."""
