"""`python -m stages.gan`."""

from stages.kit.start import start

if __name__ == "__main__":
    start("gan", shared=True)
