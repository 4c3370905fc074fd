"""`python -m stages.page`."""

from stages.kit.start import start

if __name__ == "__main__":
    start("page")
