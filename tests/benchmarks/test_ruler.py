"""Each benchmark can be imported, and the ruler's table says what its log says."""

import importlib

import pandas as pd
import pytest
from support import REPOSITORY

from benchmarks import ruler
from benchmarks._changes import change_of, read_changes


@pytest.mark.parametrize("name", sorted(path.stem for path in (REPOSITORY / "benchmarks").glob("[!_]*.py")))
def test_a_benchmark_finds_what_it_imports(name: str) -> None:
    """Nobody else imports them, so that what moves away would be missed only when one is run."""
    assert importlib.import_module(f"benchmarks.{name}").__doc__


@pytest.mark.parametrize("name", read_changes())
def test_a_change_names_values_that_its_model_has(name: str) -> None:
    """So that a search of hours doesn't end at the first misspelt one."""
    assert change_of(name).recipe.batch_images


def test_the_table_has_means_and_spreads_over_seeds() -> None:
    """Of trials that differ in the seed alone; another number of images is another row."""
    features = ("alexnet", "efficientnet")
    line = {
        "commit": "abc", "change": "faster", "minutes": 5.0, "arithmetic": "float32 AVX2", "against": "choosing",
        "covered": 90, "coverable": 100,
        **{f"{number}_{of}": 0.5 for number in ("kid", "precision", "recall") for of in features},
    }  # fmt: skip
    log = [{**line, "seed": seed, "images": 800, "kid_alexnet": kid} for seed, kid in enumerate((0.01, 0.02, 0.03))]
    log.append({**line, "seed": 0, "images": 1600, "kid_alexnet": 0.04})
    _, _, first, second = ruler.table(pd.DataFrame(log)).splitlines()
    assert first.startswith("| choosing | faster | abc | 800 | 5.0 | 3 | 0.020 ± 0.010 | 0.500 ± 0.000 |")
    assert first.endswith("| 90 of 100 | float32 AVX2 |")
    assert second.startswith("| choosing | faster | abc | 1,600 | 5.0 | 1 | 0.040 | 0.500 |")
