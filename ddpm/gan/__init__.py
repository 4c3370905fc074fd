"""A generative adversarial network: generator, critic, losses of pairs, and the training step."""
