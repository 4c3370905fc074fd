"""Figures have the same bytes on every processor."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from stages.shared.figures import save_figure


def test_a_plot_does_not_tell_the_last_digit_of_its_layout(tmp_path: Path) -> None:
    """Processors round it differently: an AMD EPYC and an Intel Xeon gave three figures other names of clip paths."""
    for name, width in (("a", 0.7), ("b", np.nextafter(0.7, 1))):
        figure = Figure(figsize=(3, 2))
        for bottom in (0.1, 0.6):
            figure.add_axes((0.1, bottom, width, 0.3)).plot([0, 1], [1, 0])
        save_figure(tmp_path / f"{name}.svg", figure)
    drawing = (tmp_path / "a.svg").read_text()
    assert drawing == (tmp_path / "b.svg").read_text()
    for number in (0, 1):  # each curve has its own
        assert drawing.count(f'id="clip{number}"') == drawing.count(f"url(#clip{number})") == 1
