"""What a state belongs to: code that can change a number, and a processor only where it computes."""

import pytest
import torch

from docs.generate import imports_of
from stages.kit.identity import PLUMBING, TRAINING, computing, platform_of
from stages.kit.runtime import PORTABLE

SOURCE = '''
"""Of rates."""

LIMIT = 10
"""Steps."""
NAME = "cosine"

class RateError(ValueError):
    def __init__(self):
        super().__init__(f"no rate above {LIMIT}")

def rate(step: int) -> float:
    """The rate."""
    if step > LIMIT:
        raise ValueError(f"{step} is too much")
    return 0.1 * step  # slow
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("# slow", "# as slow as that", True),
        ('"""The rate."""', '"""What a step is multiplied by."""', True),
        ('"""Of rates."""', "", True),
        ('"""Steps."""', '"""In steps."""', True),
        ("is too much", "is above the limit", True),
        ("no rate above", "there is no rate above", True),
        ("0.1 * step", "(0.1\n            * step)", True),
        ("0.1 * step", "0.1 * step + 0", False),
        ("LIMIT = 10", "LIMIT = 11", False),
        ("step > LIMIT", "step >= LIMIT", False),
        ('"cosine"', '"constant"', False),
    ],
)
def test_comments_docstrings_and_messages_compute_nothing(old: str, new: str, same: bool) -> None:
    assert SOURCE.count(old) == 1
    assert (computing(SOURCE.replace(old, new)) == computing(SOURCE)) == same


def test_the_processor_counts_where_it_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PORTABLE:
        monkeypatch.delenv(name, raising=False)
    cpu, cuda = (platform_of(torch.device(name)) for name in ("cpu", "cuda"))
    assert set(cpu) == {"torch", "numpy", "device", "threads", "instructions", "maker"}
    assert set(cuda) == {"torch", "numpy", "device"}
    for name, value in PORTABLE.items():  # then all makers' processors give the same bytes
        monkeypatch.setenv(name, value)
    assert platform_of(torch.device("cpu")).keys() == cpu.keys() - {"maker"}


def test_the_code_of_a_training_step_is_all_that_training_imports_of_the_library() -> None:
    reached, new = set(), {"stages.train.stage"}
    while new:
        reached |= new
        new = set().union(*map(imports_of, new)) - reached
    library = {name for name in reached if name.startswith("ddpm.") and not name.startswith(PLUMBING)}
    assert "ddpm.training.trainer" in library
    assert {name for name in library if not name.startswith(TRAINING)} == set()
