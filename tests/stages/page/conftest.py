"""The stage `page` on made-up inputs."""

import pytest
from page_inputs import build_page


@pytest.fixture
def build(write_params, tmp_path):
    """Run the stage on its inputs, with changes to details, parameters and benchmarks; return the folder `reports`."""

    def run(details=None, params=None, **benchmarks):
        write_params(params or {})
        return build_page(tmp_path, details, **benchmarks)

    return run
