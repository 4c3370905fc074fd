"""`python -m stages.tune`."""

from stages.kit.start import start

if __name__ == "__main__":
    start("tune", shared=True)
