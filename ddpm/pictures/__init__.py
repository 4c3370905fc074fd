"""Photographs to pixels: decoding, resizing, duplicates."""
