"""Images that occur twice: found, told and dropped."""

import io
import json

import numpy as np
import pytest
from extracting import DETAILS, DUPLICATES, GOOD, PREPROCESSING, TRAIN, UNSEEN, main, picture, read_table, write
from PIL import Image

from ddpm.pictures.codec import decode
from ddpm.pictures.resizing import resize
from stages.fetch.stage import encode
from stages.kit.errors import StageError
from stages.shared.files.images import open_images


def reencoded(value, **options):
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(value)).convert("RGB")
    if options.pop("mirrored", False):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image.save(buffer, "jpeg", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("dedupe", ["keep", "drop"])
def test_duplicates_and_leaks_are_found_and_dropped_if_told(lmdbs, write_params, dedupe):
    write_params({**lmdbs, "extract.dedupe": dedupe})
    first, second, third = (encode(picture(index), "jpeg") for index in (40, 41, 42))
    church = {b"a": first, b"b": second, b"c": third, b"d": first, b"e": reencoded(third, quality=50)}
    fourth = encode(picture(44), "jpeg")
    write("train", church=church, tower={b"f": reencoded(second, quality=90, mirrored=True), b"g": fourth})
    write("val", church={b"h": reencoded(third, quality=60)}, tower={b"i": encode(picture(43), "jpeg")})
    main()
    found = read_table(DUPLICATES)
    assert found.drop(columns="rms").to_csv(index=False, header=False).splitlines() == [
        "c,church,val,h,church,near,no",
        "d,church,train,a,church,exact,no",
        "e,church,val,h,church,near,no",
        "f,tower,train,b,church,near,yes",
    ]
    counts = json.loads(DETAILS.read_text())
    assert counts["train"]["duplicates_in_training"] == {"exact": 1, "near": 1}
    assert counts["train"]["duplicates_held_out"] == {"exact": 0, "near": 2}
    images, recipe = open_images(*TRAIN)
    assert recipe == PREPROCESSING.name
    table = read_table(TRAIN.table)
    if dedupe == "keep":
        assert list(table["row"]) == list("0123456")
        return
    assert list(table["status"]) == ["ok", "ok", *["duplicate"] * 4, "ok"]
    assert list(table["reason"])[2:6] == ["repeats val h", "repeats train a", "repeats val h", "repeats train b"]
    assert list(table["row"]) == ["0", "1", "", "", "", "", "2"]
    np.testing.assert_array_equal(
        images, [resize(decode(value).pixels, PREPROCESSING) for value in (first, second, fourth)]
    )
    assert counts["train"]["dropped"] == 4
    write("val", church={b"h": first}, tower={b"i": fourth})
    with pytest.raises(StageError, match="drop leaves no training image of tower"):
        main()


def test_held_out_images_that_are_training_images_are_told(lmdbs, capfd):
    """As with frames of one video: before anything is trained, because comparisons with them say little."""
    same = {b"%d" % index: encode(picture(50 + index), "jpeg") for index in range(4)}
    write("train", church=same, tower=GOOD)
    write("val", church={b"x" + key: value for key, value in same.items()}, tower={b"y": encode(picture(60), "jpeg")})
    main()
    assert "extract: 4 of 5 held-out images are near duplicates of training images: " in capfd.readouterr().err
    few = dict([*UNSEEN.items()][:1])
    write("val", church=few, tower=few)
    main()
    assert "near duplicates of training images: " not in capfd.readouterr().err
