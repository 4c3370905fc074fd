"""Files of pictures without their metadata, for those whose metadata nobody can read."""

import re
import struct
import zlib
from collections.abc import Callable

JPEG_APPLICATION = range(0xE0, 0xF0)
JPEG_COMMENT = 0xFE
JPEG_SCAN = 0xDA
WEBP_FLAGS = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}
"""What the header of an extended file says of its other chunks."""
GIF_CONTROL = 0xF9
HDR_TRANSFERS = {16, 18}
"""PQ and HLG, among the transfer functions of ITU-T H.273."""
TIFF_PIXELS = {254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325}
TIFF_PIXELS |= {332, 338, 339, 347, 512, 513, 514, 515, 519, 520, 521, 529, 530, 531, 532}
"""Tags that say where the pixels are, how they are stored and which way up."""
TIFF_PROFILE = 34675
TIFF_INTEGERS = {3: "H", 4: "I", 16: "Q"}
"""Types of a field that hold places and lengths, as `struct` calls them."""


def without_metadata(data: bytes, encoding: str, *, profile: bool) -> bytes:
    """The same picture without comments, previews, texts, damaged checksums and what stands after a cut.

    Pixels are copied as they are: if they are damaged, they stay so. So do the orientation, except where it stands in a
    text, in AVIF or in HEIC, and with `profile` the colour profile. A format without metadata, such as PPM, stays as it
    is.
    """
    return STRIPPED[encoding](data, profile) if encoding in STRIPPED else data


def is_hdr(data: bytes, encoding: str) -> bool:
    """Whether a picture declares a high dynamic range, PQ or HLG, and nothing else.

    An AVIF or HEIC may describe several pictures, of which the one in an ordinary range is shown.
    """
    described = {"png": rb"\x04cICP.(.)", "avif": rb"colrnclx...(.)", "heic": rb"colrnclx...(.)"}
    if encoding not in described:
        return False
    transfers = {found[0] for found in re.findall(described[encoding], data, re.DOTALL)}
    return bool(transfers) and transfers <= HDR_TRANSFERS


def png_is_whole(data: bytes) -> bool:
    """Whether the pixels of a PNG are those that were written: by the checksum of each piece, or else of them all."""
    pieces, sums_hold, place = [], True, 8
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4])
        if data[place + 4 : place + 8] == b"IDAT":
            pieces.append(data[place + 8 : end - 4])
            sums_hold &= zlib.crc32(data[place + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])
        place = end
    if sums_hold:
        return True
    inflater, rest = zlib.decompressobj(), b"".join(pieces)
    try:
        while rest and not inflater.eof:
            inflater.decompress(rest, 1 << 20)
            rest = inflater.unconsumed_tail
    except zlib.error:
        return False
    return inflater.eof


def _jpeg(data: bytes, profile: bool) -> bytes:
    def is_kept(marker: int, body: bytes) -> bool:
        if marker == 0xE0:
            return len(body) >= 14  # JFIF, which says that the colours are YCbCr
        if marker == 0xE2:
            return profile and body.startswith(b"ICC_PROFILE\0")
        if marker == 0xEE:
            return len(body) >= 12  # Adobe, which says what the colours are
        return marker == 0xE1 or marker not in (*JPEG_APPLICATION, JPEG_COMMENT)

    kept, place = [data[:2]], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != JPEG_SCAN:
        if data[place + 1] == 0xFF:  # a byte that fills
            place += 1
            continue
        end = place + 2 + max(2, int.from_bytes(data[place + 2 : place + 4]))
        if is_kept(data[place + 1], data[place + 4 : end]):
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])


def _png(data: bytes, profile: bool) -> bytes:
    kept, place = [data[:8]], 8
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4])
        kind, chunk = data[place + 4 : place + 8], data[place:end]
        whole = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])
        needed = kind[:1].isupper()  # else a reader may do without it
        if needed or (whole and (kind in (b"tRNS", b"eXIf") or (profile and kind == b"iCCP"))):
            kept.append(chunk)
        place = end
    return b"".join(kept)


def _webp(data: bytes, profile: bool) -> bytes:
    kept: dict[bytes, bytes] = {}
    place, frames = 12, b""
    while place + 8 <= len(data):
        kind, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        end = place + 8 + size
        if end > len(data):
            break
        chunk = data[place:end] + b"\0" * (size % 2)
        if kind == b"ANMF":
            frames += chunk
        elif kind != b"XMP " and (profile or kind != b"ICCP"):
            kept.setdefault(kind, chunk)
        place = end + size % 2
    order = [b"VP8X", b"ICCP", b"ANIM", b"ALPH", b"VP8 ", b"VP8L", b"EXIF"]
    if len(kept.get(b"VP8X", b"")) == 18:
        missing = sum(flag for name, flag in WEBP_FLAGS.items() if name not in kept)
        header = bytearray(kept[b"VP8X"])
        header[8] &= ~missing
        kept[b"VP8X"] = bytes(header)
    body = b"WEBP" + b"".join(kept.get(name, b"") + (frames if name == b"ANIM" else b"") for name in order)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _gif(data: bytes, _: bool) -> bytes:
    """Without the extensions before the first frame; its transparency, if whole, stays."""
    start = place = 13 + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 0x80 else 0)
    control = b""
    while data[place : place + 1] == b"!":
        extension = place
        place += 2
        while any(size := data[place : place + 1]):
            place += 1 + size[0]
        place += 1
        if data[extension + 1 : extension + 2] == bytes([GIF_CONTROL]) and place - extension == 8:
            control = data[extension:place]
    return data[:start] + control + data[place:]


def _tiff(data: bytes, profile: bool) -> bytes:
    """With a new directory behind everything, which has the tags of the old one that are needed.

    Raises:
        ValueError: pixels would lie where that directory comes.
    """
    order = "<" if data[:1] == b"I" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    header, count, offset, entry = (8, "Q", "Q", 20) if big else (4, "H", "I", 12)
    start = struct.unpack_from(order + offset, data, header)[0]
    entries = struct.unpack_from(order + count, data, start)[0]
    first = start + struct.calcsize(count)
    tags = [data[place : place + entry] for place in range(first, first + entries * entry, entry)]
    wanted = TIFF_PIXELS | ({TIFF_PROFILE} if profile else set())
    kept = [tag for tag in tags if len(tag) == entry and struct.unpack_from(order + "H", tag)[0] in wanted]
    for starts, lengths in ((273, 279), (324, 325)):
        places = zip(_numbers(data, kept, starts, order, big), _numbers(data, kept, lengths, order, big), strict=False)
        if any(place + length > len(data) for place, length in places):
            raise ValueError("pixels lie behind the end")
    behind = len(data) + len(data) % 2
    directory = struct.pack(order + count, len(kept)) + b"".join(kept) + struct.pack(order + offset, 0)
    moved = data[:header] + struct.pack(order + offset, behind) + data[header + struct.calcsize(offset) :]
    return moved.ljust(behind, b"\0") + directory


def _numbers(data: bytes, tags: list[bytes], wanted: int, order: str, big: bool) -> tuple[int, ...]:
    """The values of a tag of a TIFF, none if it has no such tag."""
    for tag in tags:
        number, kind, count = struct.unpack_from(order + ("HHQ" if big else "HHI"), tag)
        if number == wanted:
            form, inline = f"{order}{count}{TIFF_INTEGERS[kind]}", 12 if big else 8
            if struct.calcsize(form) <= len(tag) - inline:
                return struct.unpack_from(form, tag, inline)
            return struct.unpack_from(form, data, struct.unpack_from(order + ("Q" if big else "I"), tag, inline)[0])
    return ()


def _heif(data: bytes, profile: bool) -> bytes:
    """With EXIF, and without `profile` the profile, under names that say nothing to a reader."""
    data = re.sub(rb"(infe\x02.{7})(?:Exif|mime)", rb"\1skip", data, flags=re.DOTALL)
    return data if profile else re.sub(rb"colr(?=prof|rICC)", b"skip", data)


STRIPPED: dict[str, Callable[[bytes, bool], bytes]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "gif": _gif,
    "tiff": _tiff,
    "avif": _heif,
    "heic": _heif,
}
