"""`python -m stages.likelihood`."""

from stages.kit.start import start

if __name__ == "__main__":
    start("likelihood")
