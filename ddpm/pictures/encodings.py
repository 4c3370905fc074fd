"""Which encoding a file has, by its first bytes, and what is done where it ends too early."""

import re
from typing import Literal

Encoding = Literal["jpeg", "webp", "png", "gif", "bmp", "tiff", "avif", "heic", "ppm", "other"]
Truncated = Literal["skip", "use"]

SIGNATURES: dict[Encoding, re.Pattern[bytes]] = {
    "jpeg": re.compile(rb"\xff\xd8\xff"),
    "webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "gif": re.compile(rb"GIF8[79]a"),
    "bmp": re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL),
    "tiff": re.compile(rb"II[*+]\0|MM\0[*+]"),
    "avif": re.compile(rb".{4}ftyp(?:avi[fs]|m(?:if|sf)1.{4,40}?avi[fs])", re.DOTALL),
    "heic": re.compile(rb".{4}ftyp(?:he[iv][cmsx]|m(?:if|sf)1)", re.DOTALL),
    "ppm": re.compile(rb"P[1-6]\s+(?:#[^\n]*\n\s*)*[0-9]"),
}
"""How files begin."""
HEAD = 64
"""So many bytes of a file show its encoding."""


def encoding_of(data: bytes) -> Encoding:
    """The encoding that the first `HEAD` bytes show, whatever a file is called."""
    return next((name for name, signature in SIGNATURES.items() if signature.match(data)), "other")
