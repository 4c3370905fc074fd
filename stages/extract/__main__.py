"""`python -m stages.extract`."""

from stages.kit.start import start

if __name__ == "__main__":
    start("extract")
