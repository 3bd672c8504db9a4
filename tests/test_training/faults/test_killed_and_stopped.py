"""A run that is killed in saves and elsewhere, and stopped by signals, ends with the bytes of an uninterrupted one."""

import re
import subprocess
import sys

from tests.test_training.processes.launching import ROOT


def test_a_killed_and_stopped_run_equals_an_uninterrupted_one():
    # In a process of its own: it forks, and this one has trained before.
    command = [sys.executable, "-m", "tests.test_training.faults.killed_and_stopped", "--kills", "4", "--stops", "2"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout.splitlines()[-1]
    assert int(re.search(r"4 SIGKILLs \((\d+) in a save", summary).group(1)) >= 1, done.stdout
    assert done.stdout.count("SIGTERM to ") == 2
