"""Encoded images to pixels: what counts as an image, and what becomes of its mode, colours and orientation."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pillow_heif
import torch
from PIL import AvifImagePlugin, Image, PngImagePlugin, UnidentifiedImageError
from torchvision.io import decode_jpeg, decode_webp

from ddpm.pictures.colours import BadImage, to_rgb, to_srgb
from ddpm.pictures.encodings import Truncated, encoding_of
from ddpm.pictures.metadata import is_hdr, png_is_whole, without_metadata

FORMATS = ("JPEG", "WEBP", "PNG", "BMP", "GIF", "PPM", "TIFF", "AVIF", "HEIF")
"""What `decode` opens. Pillow knows more, among them EPS, which it hands to an external program."""
FAST = {"JPEG": decode_jpeg, "WEBP": decode_webp}
"""The same libraries as Pillow's without its copies: the same pixels in three quarters of the time."""

MAX_PIXELS = 89_478_485
"""Pillow's limit."""
PngImagePlugin.MAX_TEXT_CHUNK = 1 << 24  # 16 MB for a profile, instead of 1; 64 MB for all texts stay
AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # there is a process for each core
pillow_heif.register_heif_opener(thumbnails=False, decode_threads=1)

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


@dataclass(frozen=True)
class Decoded:
    """Pixels, uint8 `[H, W, 3]`, and Pillow's name of the mode that they were stored in: RGB, L, P, CMYK, RGBA ..."""

    pixels: np.ndarray
    mode: str


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS, truncated: Truncated = "skip") -> Decoded:
    """Decode to RGB, whole or not at all.

    Of an animation the first frame is taken, of several pages the first. The orientation is applied. Colours with an
    embedded profile are converted to sRGB, see `to_srgb`; for modes other than RGB see `to_rgb`. Damaged metadata is
    ignored.

    Args:
        data: a file.
        max_pixels: more may be an attack: a small file can claim any size.
        truncated: `use` takes a JPEG that lacks its end if no pixel depends on what is lacking.

    Raises:
        BadImage: no image, a damaged or truncated one, one of too many pixels, or of a high dynamic range.
    """
    if not data:
        raise BadImage("no bytes")
    if is_hdr(data, encoding_of(data)):
        raise BadImage("a high dynamic range (PQ or HLG)")
    with _limit(max_pixels):
        try:
            return _decode(data)
        except BadImage:
            if truncated == "use" and data.startswith(b"\xff\xd8") and (image := _completed(data)):
                return image
            for profile in (True, False):
                try:
                    return _decode(without_metadata(data, encoding_of(data), profile=profile))
                except MemoryError:
                    raise
                except Exception:  # damaged bytes; the first reason is the one to tell
                    continue
            raise


@contextlib.contextmanager
def _limit(pixels: int) -> Iterator[None]:
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def _decode(data: bytes) -> Decoded:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            mode, pixels = image.mode, _upright_pixels(image, data)
            if image.format == "PNG" and not png_is_whole(data):  # which Pillow doesn't ask
                raise BadImage("damaged pixels (checksum)")
            return Decoded(pixels, mode)
    except (BadImage, MemoryError):  # who has too little memory has no damaged image
        raise
    except UnidentifiedImageError:
        encoding = encoding_of(data)  # Pillow's own words hold a memory address
        known = f"{encoding.upper()} of an unsupported kind, or with a damaged header"
        raise BadImage("no image in a known format" if encoding == "other" else known) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage(f"more than {Image.MAX_IMAGE_PIXELS} pixels") from None
    except Exception as error:  # damaged bytes make Pillow's decoders raise almost anything
        raise BadImage(" ".join(str(error).split()) or type(error).__name__) from None


def _completed(data: bytes) -> Decoded | None:
    """The JPEG with an end, if its pixels are the same whatever stands before that end."""
    end = b"\xff\xd9"
    data = data.removesuffix(end[:1])
    try:
        image, other = (_decode(data + more + end) for more in (b"", b"\x55\xaa" * 32))
    except BadImage:
        return None
    return image if np.array_equal(image.pixels, other.pixels) else None


def _upright_pixels(image: Image.Image, data: bytes) -> np.ndarray:
    if image.format == "TIFF":
        image.load()  # which turns it
    turn, transform = UPRIGHT.get(_orientation(image)), to_srgb(image.info.get("icc_profile"), image.mode)
    if image.format in FAST and turn is None and transform is None and image.mode == "RGB" and _is_still(image):
        pixels = _fast_pixels(data, image.format)
        if pixels is not None and pixels.shape == (image.height, image.width, 3):
            return pixels
    return np.array(to_rgb(image if turn is None else image.transpose(turn)))


def _is_still(image: Image.Image) -> bool:
    return getattr(image, "n_frames", 1) == 1


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged metadata
        return 1


def _fast_pixels(data: bytes, encoding: str) -> np.ndarray | None:
    """uint8 `[H, W, C]`, or None where Pillow shall say what is wrong."""
    try:
        return FAST[encoding](torch.frombuffer(bytearray(data), dtype=torch.uint8)).permute(1, 2, 0).numpy()
    except RuntimeError:
        return None
