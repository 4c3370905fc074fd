"""`python -m stages.autoencode`."""

from stages.kit.start import start

if __name__ == "__main__":
    start("autoencode", shared=True)
