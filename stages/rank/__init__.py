"""Stage `rank`: LPIPS of each sample to its nearest training image."""
