"""`python -m stages.evaluate`."""

from stages.kit.start import start

if __name__ == "__main__":
    start("evaluate")
