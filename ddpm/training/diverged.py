"""What a training run ends with that has gone wrong."""

WINDOW = 50
"""Steps over which losses are compared, and after which they are read."""


class DivergedError(RuntimeError):
    """A training run shows that nothing will come of it; the message says what it shows.

    Attributes:
        step: the first step that shows it.
    """

    def __init__(self, step: int, message: str):
        super().__init__(message)
        self.step = step
