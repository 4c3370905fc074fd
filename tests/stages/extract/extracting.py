"""What tests of `extract` share: its paths, a call of it, and records good and bad."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ddpm.pictures.resizing import Preprocessing
from stages.extract import stage as extract
from stages.fetch.stage import encode
from stages.shared.files.images import image_set
from stages.shared.lmdbs import write_lmdb

FACTORS, IMAGES, DETAILS, FIGURES = (Path(name) for name in ("factors.csv", "images", "extract.json", "figures"))
OPTIONS = {"lmdb": Path("lmdb"), "factors": FACTORS, "images": IMAGES, "details": DETAILS, "figures": FIGURES}
TRAIN, VAL, DUPLICATES = image_set(IMAGES, "train"), image_set(IMAGES, "val"), IMAGES / "duplicates.csv"
OUTS = [*TRAIN, *VAL, DUPLICATES, DETAILS, FIGURES / "data.png"]
PREPROCESSING = Preprocessing(size=48, geometry="center_crop", filter="lanczos")


def picture(index, size=(300, 256)):
    levels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize(size, Image.BICUBIC)


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


GOOD = {
    b"00": encode(picture(0), "jpeg"),
    b"02": encode(picture(2, (256, 400)), "webp"),
    b"04": png(picture(4, (40, 30)).convert("L")),
}
BAD = {b"01": b"", b"03": b"no image\n" * 9, b"05": GOOD[b"00"][:3000]}
UNSEEN = {b"1%x" % index: encode(picture(10 + index), "jpeg") for index in range(3)}


def data_mdb(category, split):
    return Path("lmdb") / f"{category}_{split}_lmdb" / "data.mdb"


def write(split, **records):
    for category, values in records.items():
        write_lmdb(data_mdb(category, split), values.items())


def read_table(path):
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def main():
    extract.main(**OPTIONS)
