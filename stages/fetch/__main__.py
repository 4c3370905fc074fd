"""`python -m stages.fetch`."""

from stages.kit.start import start

if __name__ == "__main__":
    start("fetch")
