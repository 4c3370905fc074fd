"""`python -m stages.train`."""

from stages.kit.start import start

if __name__ == "__main__":
    start("train", shared=True)
