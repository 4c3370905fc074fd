"""What tests of downloads share: two files of the same size, what one is held to, and what went on."""

import hashlib
import random
import re

import pytest

from stages.kit.errors import StageError
from stages.shared.download import download


def some_file(seed):
    return random.Random(seed).randbytes(300_000)


CONTENT, OTHER = some_file(0), some_file(1)
SIZE = len(CONTENT)
DIGEST, OTHER_DIGEST = (hashlib.sha256(content).hexdigest() for content in (CONTENT, OTHER))
PINNED = {"size": SIZE, "sha256": DIGEST, "pin": "pins.csv, church"}
PATH = "/file.zip"


def failure(urls, target, **pinned):
    """The one line of the error."""
    with pytest.raises(StageError) as caught:
        download(urls, target, **pinned)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    return str(caught.value)


def waits(capfd):
    return [int(seconds) for seconds in re.findall(r"; going on in (\d+) s\n", capfd.readouterr().err)]


def ranges(server):
    return [asked for _, asked in server.asked]
