"""Stage `tune`: trained weights to a consistency function."""
