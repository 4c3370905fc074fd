"""Types, as mypy checks them: beside the other tests, because without its cache that takes most of a minute."""

import subprocess
import sys

import pytest
from support import REPOSITORY


@pytest.mark.slow
def test_types_hold() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
