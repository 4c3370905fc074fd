"""Encoded images to pixels: what counts as an image, and what becomes of its mode and orientation."""

import io
import warnings
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torchvision.io import decode_jpeg, decode_webp

Encoding = Literal["jpeg", "webp", "png", "other"]

ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
FORMATS = ("JPEG", "WEBP", "PNG", "BMP", "GIF", "PPM", "TIFF")
"""What `decode` opens. Pillow knows more, among them EPS, which it hands to an external program."""
FAST = {"JPEG": decode_jpeg, "WEBP": decode_webp}
"""The same libraries as Pillow's without its copies: the same pixels in three quarters of the time."""

ORIENTATION = 0x0112
"""The EXIF tag."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation. Pillow's `exif_transpose` writes all tags anew besides, and fails where one is odd."""


class BadImage(ValueError):  # noqa: N818
    """The bytes are no image that can be used; the message is a short reason."""


@dataclass(frozen=True)
class Decoded:
    """Pixels, uint8 `[H, W, 3]`, and Pillow's name of the mode that they were stored in: RGB, L, P, CMYK, RGBA ..."""

    pixels: np.ndarray
    mode: str


def encoding_of(data: bytes) -> Encoding:
    """The encoding that the first bytes name, whatever a file is called."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return "png" if data.startswith(b"\x89PNG\r\n\x1a\n") else "other"


def decode(data: bytes) -> Decoded:
    """Decode to RGB, whole or not at all.

    Of an animation the first frame is taken. An EXIF orientation is applied, a colour profile is not; for modes other
    than RGB see `to_rgb`.

    Raises:
        BadImage: no image, a damaged or truncated one, or one of so many pixels that it may be an attack.
    """
    if not data:
        raise BadImage("no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, which isn't used
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                mode = image.mode
                return Decoded(_upright_pixels(image, data), mode)
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage("no image in a known format") from None  # Pillow's own words hold a memory address
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage(f"more than {Image.MAX_IMAGE_PIXELS} pixels") from None
    except Exception as error:  # damaged bytes make Pillow's decoders raise almost anything
        raise BadImage(" ".join(str(error).split()) or type(error).__name__) from None


def _upright_pixels(image: Image.Image, data: bytes) -> np.ndarray:
    turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    still = getattr(image, "n_frames", 1) == 1
    if turn is None and image.mode == "RGB" and still and image.format in FAST:
        pixels = _fast_pixels(data, image.format)
        if pixels is not None and pixels.shape == (image.height, image.width, 3):
            return pixels
    return np.array(to_rgb(image if turn is None else image.transpose(turn)))


def _fast_pixels(data: bytes, encoding: str) -> np.ndarray | None:
    """uint8 `[H, W, C]`, or None where Pillow shall say what is wrong."""
    try:
        return FAST[encoding](torch.frombuffer(bytearray(data), dtype=torch.uint8)).permute(1, 2, 0).numpy()
    except RuntimeError:
        return None


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB: grey is repeated, a palette looked up, CMYK converted, transparency laid over white.

    16-bit grey is scaled to 8 bits. Wider integers and floats have no declared range.

    Raises:
        BadImage: the mode says too little about its values.
    """
    if image.mode.startswith("I;16"):
        return Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BadImage(f"pixels of mode {image.mode} have no declared range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
