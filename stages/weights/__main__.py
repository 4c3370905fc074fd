"""`python -m stages.weights`."""

from stages.kit.start import start

if __name__ == "__main__":
    start("weights")
