"""The table of experiments."""

from tools.experiments import WIDTH, table

METRICS = {
    "kid": 0.0345, "kid_low": 0.021, "kid_high": 0.0503, "precision": 0.734375, "recall": 0.859375,
    "lpips6": 0.0523, "copies": 0.0, "loss": 0.0823,
}  # fmt: skip
COMMIT = {"Experiment": None, "rev": "main", **METRICS, "seed": 0.0, "runtime.threads": 2.0, "data/lmdb": "0123"}
WORKSPACE = {**COMMIT, "rev": "workspace", "runtime.threads": 1.0}


def test_the_best_comes_first_with_what_was_changed():
    better = {**COMMIT, "Experiment": "better", "kid": 0.01, "copies": 3.0, "seed": 5.0, "data/lmdb": "4567"}
    lines = table([WORKSPACE, COMMIT, better]).splitlines()
    assert [line.split()[0] for line in lines] == ["experiment", "better", "workspace", "main"]
    assert lines[1].split() == [
        "better", "0.0100", "[0.0210,", "0.0503]", "0.73", "0.86", "0.052", "3", "0.0823", "seed=5"
    ]  # fmt: skip
    assert lines[2].endswith("0.0823"), "neither the machine nor the data's hash is a changed parameter"


def test_an_experiment_without_numbers_comes_last():
    queued = {"Experiment": "queued", "rev": "queued", "kid": None, "seed": 1.0}
    last = table([WORKSPACE, COMMIT, queued]).splitlines()[-1]
    assert last.split() == ["queued", *"-" * 6, "seed=1"]


def test_a_terminal_is_wide_enough():
    long = {**COMMIT, "Experiment": "a", "models.tiny.recipe.learning_rate": 0.001, "sample.spacing": "x" * 80}
    assert max(map(len, table([WORKSPACE, COMMIT, long]).splitlines())) == WIDTH
