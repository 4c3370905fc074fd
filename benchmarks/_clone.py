"""A clone of the repository in which to run `dvc` as users do, for tests and benchmarks."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]


def variables() -> dict[str, str]:
    """The environment of a user who has activated this Python's."""
    outside = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    return {**outside, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{outside['PATH']}"}


class Clone:
    """A clone of the repository as it stands, uncommitted changes included."""

    def __init__(self, folder: Path):
        self.folder = folder
        files = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard"], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        for name in files.stdout.splitlines():
            if (REPOSITORY / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(REPOSITORY / name, folder / name)
        # The LPIPS archive alone: 64 MB that every clone would fetch again.
        downloads = folder / ".cache" / "download"
        downloads.mkdir(parents=True)
        for archive in (REPOSITORY / ".cache" / "download").glob("*.tar.gz"):
            (downloads / archive.name).symlink_to(archive)
        self.git("init", "-q")
        self.commit("clone")

    @classmethod
    def at(cls, folder: Path) -> "Clone":
        """The clone that lies in `folder`."""
        clone = cls.__new__(cls)
        clone.folder = folder
        return clone

    def copy(self, folder: Path) -> "Clone":
        """The clone in another folder, with all that has happened in it."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return self.at(folder)

    def cloned(self, folder: Path) -> "Clone":
        """What Git has of it, in another folder."""
        self.git("clone", "-q", ".", str(folder))
        return self.at(folder)

    def git(self, *arguments: str) -> str:
        """Standard output of `git ...`."""
        return subprocess.run(["git", *arguments], cwd=self.folder, capture_output=True, text=True, check=True).stdout

    def commit(self, message: str) -> None:
        """Commit all that there is."""
        self.git("add", "-A")
        self.git("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", message)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """`dvc ...` as a process, with these options of `subprocess.Popen`."""
        return subprocess.Popen(
            [sys.executable, "-m", "dvc", *arguments], cwd=self.folder, env=variables(), text=True, **options
        )

    def dvc(self, *arguments: str, fails: bool = False) -> str:
        """Standard output and error of `dvc ...`."""
        process = self.start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        stdout, stderr = process.communicate()
        assert (process.returncode != 0) == fails, stdout + stderr
        return stdout + stderr

    def ran(self, *arguments: str) -> list[str]:
        """The stages that `dvc ...` ran."""
        return re.findall(r"Running stage '(\w+)'", self.dvc(*arguments))
