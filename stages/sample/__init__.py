"""Stage `sample`: weights to images."""
