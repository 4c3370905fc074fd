"""`python -m stages.rank`."""

from stages.kit.start import start

if __name__ == "__main__":
    start("rank", shared=True)
