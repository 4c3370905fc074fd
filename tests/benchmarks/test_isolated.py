import subprocess
import sys

import psutil
from support import REPOSITORY

IN_NEW_PROCESS = """
from benchmarks._isolated import in_new_process
in_new_process(1, exec, "import time; print('begun', flush=True); time.sleep(60)")
"""


def test_a_killed_benchmark_leaves_no_process() -> None:
    command = [sys.executable, "-c", IN_NEW_PROCESS]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        assert run.stdout
        assert run.stdout.readline() == b"begun\n"
        started = psutil.Process(run.pid).children(recursive=True)
        run.kill()
    assert started
    assert psutil.wait_procs(started, timeout=20)[1] == []
