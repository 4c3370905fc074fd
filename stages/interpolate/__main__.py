"""`python -m stages.interpolate`."""

from stages.kit.start import start

if __name__ == "__main__":
    start("interpolate")
