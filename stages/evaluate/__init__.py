"""Stage `evaluate`: samples against held-out images as distributions."""
