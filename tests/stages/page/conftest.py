"""The stage `page` on made-up inputs."""

import json

import pytest
from page_inputs import DETAILS, QUALITY, WEIGHTS, write_arrays, write_figures

from stages.page.stage import main


@pytest.fixture
def build(write_params, tmp_path):
    """Write the stage's inputs, with `changes` to details and to parameters, run it and return the folder `reports`."""

    def run(details=None, params=None, quality=None):
        write_params(params or {})
        (tmp_path / "details").mkdir(exist_ok=True)
        for stage, values in {**DETAILS, **(details or {})}.items():
            (tmp_path / "details" / f"{stage}.json").write_text(json.dumps(values))
        (tmp_path / "loss.csv").write_text("epoch,step,loss,learning_rate\n5,1250,0.2,0.001\n10,2500,0.1,0.0001\n")
        (tmp_path / "quality.json").write_text(json.dumps({**QUALITY, **(quality or {})}))
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / "ema.safetensors").write_bytes(WEIGHTS)
        write_arrays(tmp_path)
        write_figures(tmp_path / "figures")
        main(
            details=tmp_path / "details",
            figures=tmp_path / "figures",
            losses=tmp_path / "loss.csv",
            model=tmp_path / "model",
            images=tmp_path / "images",
            samples=tmp_path / "samples",
            neighbours=tmp_path / "neighbours.csv",
            quality=tmp_path / "quality.json",
            reports=tmp_path / "reports",
        )
        return tmp_path / "reports"

    return run
