"""`python -m stages.sample`."""

from stages.kit.start import start

if __name__ == "__main__":
    start("sample", shared=True)
