import pytest
from extracting import BAD, FACTORS, GOOD, UNSEEN, picture, write

from stages.fetch.stage import encode


@pytest.fixture
def lmdbs(write_params):
    changes = {"sources.demo.categories": ["church", "tower"], "extract.max_bad_fraction": 0.5}
    write_params(changes)
    write("train", church={**GOOD, **BAD}, tower=UNSEEN)
    write("val", church={b"20": encode(picture(20), "jpeg")}, tower={b"21": encode(picture(21), "jpeg")})
    FACTORS.write_text("split,category,key,roof\ntrain,church,00,NA\ntrain,church,02,steep\nval,tower,21,flat\n")
    return changes
