"""Pixels of any mode and with any colour profile as RGB in sRGB."""

import functools
import io

import numpy as np
from PIL import Image, ImageCms

SRGB = ImageCms.createProfile("sRGB")
SRGB_TOLERANCE = 2
"""A profile that moves no colour by more levels is sRGB: makers write that in many ways."""
TIFF_BITS, TIFF_PHOTOMETRIC = 258, 262
MODES = ("RGB", "L", "CMYK")
"""What a profile of a picture may be for."""


class BadImage(ValueError):  # noqa: N818
    """The bytes are no image that can be used; the message is a short reason."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB: grey is repeated, a palette looked up, CMYK converted, transparency laid over white.

    Colours go from the embedded profile to sRGB, with relative colorimetric intent and black point compensation.
    Grey of 12 or 16 bits is scaled to 8. Wider integers and floats have no declared range. A BMP that is transparent
    everywhere is taken as opaque: many programs leave that byte 0.

    Raises:
        BadImage: the mode says too little about its values.
    """
    profile = image.info.get("icc_profile")
    # Pillow scales the levels of a PGM to 16 bits, whatever the greatest one is.
    if image.mode.startswith("I;16") or (image.format, image.mode) == ("PPM", "I"):
        image = _eight_bits(image)
    if image.mode in ("I", "F"):
        raise BadImage(f"pixels of mode {image.mode} have no declared range")
    if not image.has_transparency_data:
        return _in_srgb(image.convert("RGB") if image.mode in ("P", "YCbCr") else image, profile)
    cover = image.convert("RGBA")
    opacity = cover.getchannel("A")
    if image.format == "BMP" and opacity.getextrema() == (0, 0):
        return cover.convert("RGB")
    cover = _in_srgb(cover.convert("L" if image.mode in ("L", "LA") else "RGB"), profile)
    cover.putalpha(opacity)
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), cover).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 12 or 16 bits as L, or as LA where one level means transparent."""
    levels, tags = np.asarray(image), getattr(image, "tag_v2", {})
    white = (1 << tags.get(TIFF_BITS, (16,))[0]) - 1
    if tags.get(TIFF_PHOTOMETRIC) == 0:
        levels = white - levels  # 0 is white, which Pillow minds for 8 bits alone
    grey = Image.fromarray(((levels.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8))
    if "transparency" in image.info:
        grey.putalpha(Image.fromarray(np.where(levels == image.info["transparency"], 0, 255).astype(np.uint8)))
    return grey


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    transform = to_srgb(profile, image.mode)
    return (transform.apply(image) if transform else image).convert("RGB")


@functools.lru_cache(maxsize=16)
def to_srgb(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From the profile to sRGB; None where there is nothing to do: none, a damaged one, one of other modes, or sRGB."""
    if not profile or mode not in MODES:
        return None
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            SRGB,
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    probe = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(-1, 1, 3)
    colours = Image.fromarray(probe).convert(mode)
    moved = np.asarray(transform.apply(colours), int) - np.asarray(colours.convert("RGB"), int)
    return transform if np.abs(moved).max() > SRGB_TOLERANCE else None
