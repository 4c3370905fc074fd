"""What tests of `fetch` share: its paths, a call of it, and records to be fetched."""

import random
from pathlib import Path

from stages.fetch import stage as fetch

PUBLISHED, LMDB, FACTORS_CSV = Path("lsun.csv"), Path("data/lmdb"), Path("data/factors.csv")
PASSED_OVER = Path("data/passed_over.csv")
OPTIONS = {"published": PUBLISHED, "lmdb": LMDB, "factors": FACTORS_CSV, "passed_over": PASSED_OVER}


def data_mdb(category, split):
    return LMDB / f"{category}_{split}_lmdb" / "data.mdb"


def main():
    fetch.main(**OPTIONS)


def records(count, seed=0):
    draw = random.Random(seed)
    return [(b"%040x" % draw.getrandbits(160), draw.randbytes(20_000)) for _ in range(count)]
