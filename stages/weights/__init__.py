"""Stage `weights`: the convolutions behind LPIPS."""
