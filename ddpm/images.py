"""Images from encoded bytes to model input and back: one decoder, one resize recipe, one pair of range conversions."""

import io
import warnings
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

Encoding = Literal["jpeg", "webp", "png", "other"]
Filter = Literal["box", "bilinear", "hamming", "bicubic", "lanczos"]

ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
FORMATS = ("JPEG", "WEBP", "PNG", "BMP", "GIF", "PPM", "TIFF")
"""What `decode` opens. Pillow knows more, among them EPS, which it hands to an external program."""


class BadImage(ValueError):  # noqa: N818
    """The bytes are no image that can be used; the message is a short reason."""


def encoding_of(data: bytes) -> Encoding:
    """The encoding that the first bytes name, whatever a file is called."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return "png" if data.startswith(b"\x89PNG\r\n\x1a\n") else "other"


def encode(image: Image.Image, encoding: Literal["jpeg", "webp"], quality: int = 90) -> bytes:
    """Encode an RGB image; `quality` is the encoder's own scale, 0 to 100."""
    buffer = io.BytesIO()
    image.save(buffer, encoding, quality=quality)
    return buffer.getvalue()


def decode(data: bytes) -> Image.Image:
    """Decode to RGB, whole or not at all.

    Pixels are taken as they are stored: neither an EXIF orientation nor a colour profile is applied.

    Raises:
        BadImage: no image, a damaged or truncated one, or one of so many pixels that it may be an attack.
    """
    if not data:
        raise BadImage("no bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            image.load()
            return to_rgb(image)
    except BadImage:
        raise
    except UnidentifiedImageError:
        raise BadImage("no image in a known format") from None  # Pillow's own words hold a memory address
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage(f"more than {Image.MAX_IMAGE_PIXELS} pixels") from None
    except Exception as error:  # damaged bytes make Pillow's decoders raise almost anything
        raise BadImage(" ".join(str(error).split()) or type(error).__name__) from None


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


def resize_center_crop(image: Image.Image, size: int, filter: Filter) -> np.ndarray:  # noqa: A002
    """The one recipe: cut the central square of the short side, then resize once with an antialiased Pillow filter.

    An odd margin loses its extra pixel on the right or at the bottom, as in `(width - side) // 2`.

    Args:
        image: RGB, of any size.
        size: width and height of the result in pixels.
        filter: Pillow's name of the filter.

    Returns:
        uint8 `[size, size, 3]`.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return np.array(square.resize((size, size), Image.Resampling[filter.upper()]))


def to_model_range(images: np.ndarray | Tensor) -> Tensor:
    """uint8 `[N, H, W, C]` to float32 `[N, C, H, W]` in [-1, 1]."""
    # The copy makes a read-only memory map, as np.load(mmap_mode="r") gives it, acceptable to torch.
    pixels = torch.from_numpy(np.array(images)) if isinstance(images, np.ndarray) else images
    return pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 127.5 - 1


def to_uint8(images: Tensor) -> np.ndarray:
    """Float `[N, C, H, W]` in [-1, 1] to uint8 `[N, H, W, C]`, rounded and clamped; undoes `to_model_range` exactly."""
    levels = (images.float() * 127.5 + 127.5).round().clamp(0, 255)
    return np.ascontiguousarray(levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())


def tile_grid(images: np.ndarray, columns: int, padding: int = 2, scale: int = 1) -> np.ndarray:
    """Lay images out row by row on white.

    Args:
        images: uint8 `[N, H, W, 3]`.
        columns: images per row; the last row may be shorter.
        padding: white pixels around each image, after scaling.
        scale: each pixel becomes a square of so many pixels.

    Returns:
        uint8 `[rows * (H * scale + padding) + padding, columns * (W * scale + padding) + padding, 3]`.
    """
    large = images.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = large.shape[1] + padding, large.shape[2] + padding
    rows = -(-len(large) // columns)
    grid = np.full((rows * height + padding, columns * width + padding, 3), 255, np.uint8)
    for index, image in enumerate(large):
        top, left = index // columns * height + padding, index % columns * width + padding
        grid[top : top + image.shape[0], left : left + image.shape[1]] = image
    return grid
