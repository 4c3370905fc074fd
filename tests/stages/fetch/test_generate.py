"""Drawn images."""

import hashlib

import pandas as pd
import pytest
from fetching import FACTORS_CSV, LMDB, data_mdb, main

from ddpm.config import ConfigError
from ddpm.drawing.scenes import FACTORS
from ddpm.pictures.codec import decode
from ddpm.pictures.encodings import encoding_of
from stages.shared.lmdbs import read_lmdb

SMALL = {"data": "smoke", "sources.smoke.train_images": 6, "sources.smoke.val_images": 3}


@pytest.mark.parametrize("categories", [["church"], ["church", "tower", "bridge"]])
def test_generated_images_are_lsun_records_and_depend_on_the_seed_alone(write_params, categories):
    small = {**SMALL, "sources.smoke.categories": categories}
    write_params(small)
    main()
    files = [data_mdb(category, split) for category in categories for split in ("train", "val")]
    assert sorted(LMDB.rglob("*.*")) == sorted(files)
    first = [path.read_bytes() for path in (*files, FACTORS_CSV)]
    table = pd.read_csv(FACTORS_CSV)
    assert list(table.columns) == ["split", "category", "key", *FACTORS]
    for category in categories:
        found = dict(read_lmdb(data_mdb(category, "train")))
        assert len(found) == 6
        assert all(key.decode() == hashlib.sha1(value).hexdigest() for key, value in found.items())
        assert {encoding_of(value) for value in found.values()} == {"jpeg", "webp"}
        assert {min(decode(value).pixels.shape[:2]) for value in found.values()} == {256}
        rows = table[table["category"] == category]
        assert list(rows["split"]) == ["train"] * 6 + ["val"] * 3
        assert set(rows["key"]) == {
            key.decode() for split in ("train", "val") for key, _ in read_lmdb(data_mdb(category, split))
        }
    main()
    assert [path.read_bytes() for path in (*files, FACTORS_CSV)] == first
    church = dict(read_lmdb(files[0]))
    write_params({**small, "sources.smoke.seed": 1})
    main()
    assert not set(church) & set(dict(read_lmdb(files[0])))


def test_a_category_is_drawn_the_same_beside_others(write_params):
    write_params({**SMALL, "sources.smoke.categories": ["bridge", "church"]})
    main()
    beside = data_mdb("church", "train").read_bytes()
    write_params(SMALL)
    main()
    assert data_mdb("church", "train").read_bytes() == beside


def test_unknown_kinds_sources_and_keys_are_named(write_params):
    for changes, message in (
        ({"data": "nope"}, r"sources\.nope: not there; sources has .*smoke"),
        ({"sources.smoke.kind": "web"}, r"sources\.smoke\.kind = 'web': must be one of generate, path, lsun"),
        ({"sources.smoke.images": 3}, r"sources\.smoke\.images: no such parameter"),
        ({"sources.smoke.categories": ["castle"]}, r"categories has castle; drawn are church, tower, bridge"),
        ({"sources.smoke.categories": ["church", "church"]}, r"categories has church twice"),
        ({"sources.smoke.categories": []}, r"sources\.smoke\.categories = \[\]"),
        ({"data": "lsun", "sources.lsun.categories": ["../tower"]}, r'categories\.0 = "\.\./tower"'),
        ({"data": "lsun", "sources.lsun.urls": ["ftp://example.org"]}, r'urls\.0 = "ftp:'),
        ({"data": "path", "sources.path.categories": ["a", "b"], "sources.path.val": "c"}, "one path for 2 categories"),
    ):
        write_params({**SMALL, **changes})
        with pytest.raises(ConfigError, match=message):
            main()
