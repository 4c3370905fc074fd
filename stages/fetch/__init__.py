"""Stage `fetch`: the chosen source of images as LSUN-format LMDBs."""
