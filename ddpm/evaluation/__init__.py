"""How good images are: LPIPS, distances between sets, nearest neighbours, copies, the variational bound."""
