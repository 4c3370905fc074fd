"""Any records, any number of workers, killed at any moment."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from extracting import GOOD, OPTIONS, OUTS, UNSEEN, main, write
from hypothesis import given, settings
from hypothesis import strategies as st
from killing import kill_and_repeat

from ddpm.pictures.codec import MAX_PIXELS, BadImage, decode
from ddpm.pictures.resizing import resize
from stages.extract import stage as extract
from stages.extract.config import ExtractConfig
from stages.kit import workers as _workers
from stages.kit.errors import StageError
from stages.shared.lmdbs import key_bytes, write_lmdb


def test_the_same_bytes_from_any_number_of_workers(lmdbs, monkeypatch):
    seen = set()
    for cores in (1, 2, 3):
        for records in (1, 2, 128):
            monkeypatch.setattr(_workers, "worker_count", lambda cores=cores: cores)
            monkeypatch.setattr(
                extract, "RUN", records
            )  # of one record: some runs have more, which go on in the parent
            main()
            seen.add(tuple(path.read_bytes() for path in OUTS))
    assert len(seen) == 1


def readable(value):
    try:
        return decode(value)
    except BadImage:
        return None


VALUES = [*GOOD.values(), *UNSEEN.values()]


@settings(max_examples=25, deadline=None)
@given(
    count=st.sampled_from([0, 1, 2, 3, 50, 255, 256, 257, 600, 5000]),
    seed=st.integers(0, 10**6),
    flips=st.integers(0, 4),
)
def test_a_fuzzed_lmdb_is_accounted_for_record_by_record(tmp_path_factory, count, seed, flips):
    """Odd keys, and values with random bytes changed: nothing crashes, and the counts add up."""
    rng = np.random.default_rng(seed)
    records = {}
    for number in range(count):
        value = bytearray(VALUES[rng.integers(len(VALUES))])
        for place in rng.integers(0, len(value), flips):
            value[place] = rng.integers(256)
        records[rng.bytes(rng.integers(1, 40)) + b"%d" % number] = bytes(value)
    folder = tmp_path_factory.mktemp("fuzz")
    file, target = folder / "data.mdb", folder / "train.npy"
    write_lmdb(file, records.items())
    config = ExtractConfig(
        size=32,
        geometry="squash",
        filter="bilinear",
        max_bad_fraction=1.0,
        dedupe="keep",
        max_pixels=MAX_PIXELS,
        truncated="skip",
    )
    sources = [extract.Lmdb(file, "church", 0)]
    if not any(readable(value) for value in records.values()):
        with pytest.raises(StageError, match="none of its records is usable" if records else "an empty LMDB"):
            extract.extract(sources, target, config, "train")
        return
    table = extract.extract(sources, target, config, "train")
    assert [key_bytes(key) for key in table["key"]] == sorted(records)
    good = table[table["status"] == "ok"]
    assert list(good["row"]) == list(range(len(good)))
    images = np.load(target)
    assert images.shape == (len(good), 32, 32, 3)
    for key, row in good[["key", "row"]].sample(min(5, len(good)), random_state=0).itertuples(index=False):
        np.testing.assert_array_equal(images[row], resize(decode(records[key_bytes(key)]).pixels, config))
    for key in table.loc[table["status"] == "bad", "key"].head(5):
        with pytest.raises(BadImage):
            decode(records[key_bytes(key)])
    counts = extract.summary(table, ["L", "RGB"], 32)
    assert counts["n"] == count == counts["images"] + counts["bad"] == sum(counts["encoding"].values())
    assert list(counts["encoding"])[:4] == list(extract.USUAL)
    shutil.rmtree(folder)


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again_gives_the_same_bytes(lmdbs, processes):
    write("train", church={b"%06d" % index: value for index, value in enumerate(VALUES * 50)}, tower=UNSEEN)
    kill_and_repeat(processes, extract.main, OPTIONS, OUTS)
    assert not list(Path().rglob(".*.part"))
