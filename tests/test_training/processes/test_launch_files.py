"""The files of ``accelerate launch`` and the SLURM script, tried with a stand-in for SLURM."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.commands.config import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

from tests.test_training.conftest import WITHOUT_DROPOUT
from tests.test_training.processes.launching import ROOT
from tests.test_training.run_files import read_losses

FILES = sorted((ROOT / "configs/accelerate").glob("*.yaml"))
SCRIPTS = sorted((ROOT / "configs/slurm").glob("*.sh"))
BINARIES = Path(sys.executable).parent
EXPECTED = {  # machines, processes of all, FSDP
    "one_process": (1, 1, False),
    "two_processes_cpu": (1, 2, False),
    "fsdp2_two_processes_cpu": (1, 2, True),
    "eight_gpus": (1, 8, False),
    "fsdp2_eight_gpus": (1, 8, True),
    "two_machines_eight_gpus": (2, 16, False),
}
# Runs what it is given once for each machine, at the same time, and passes USR1 on, as srun does.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
tasks=()
for node in $(seq 0 $((SLURM_JOB_NUM_NODES - 1))); do SLURM_NODEID=$node "$@" & tasks+=($!); done
trap 'kill -USR1 "${tasks[@]}"' USR1
worst=0
for task in "${tasks[@]}"; do
  while wait "$task" || status=$?; kill -0 "$task" 2>/dev/null; do status=0; done
  ((${status:-0} > worst)) && worst=$status
done
exit "$worst"
"""
SCONTROL = """#!/usr/bin/env bash
if [[ $1 == show ]]; then printf '%s\\n' localhost other; else echo "$@" >> "$SCONTROL_CALLS"; fi
"""
# In the place of `accelerate launch`: a launcher that starts a process and does not know USR1.
LAUNCHER = """#!/usr/bin/env python3
import os, subprocess, sys
program = '''
import signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))
open(sys.argv[1], "w").close()
time.sleep(60)
sys.exit(9)
'''
started = os.environ["STARTED"] + os.environ["SLURM_NODEID"]
sys.exit(subprocess.run([sys.executable, "-c", program, started], start_new_session=True).returncode)
"""


def test_every_file_is_known():
    assert {path.stem for path in FILES} == EXPECTED.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_accelerate_takes_every_file(path):
    machines, processes, fsdp = EXPECTED[path.stem]
    config = load_config_from_file(str(path))
    assert (config.num_machines, config.num_processes) == (machines, processes)
    arguments = launch_command_parser().parse_args(["--config_file", str(path), "-m", "bimodal_cl.train"])
    arguments, _, _ = _validate_launch_command(arguments)
    assert (arguments.num_machines, arguments.num_processes) == (machines, processes)
    assert (arguments.use_fsdp, arguments.multi_gpu) == (fsdp, processes > 1 and not fsdp)
    assert not fsdp or str(arguments.fsdp_version) == "2"
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"--config_file configs/accelerate/{path.name}" in line for line in header)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Run a script as SLURM would, with programs in the place of others; return what starts it."""

    def start(*arguments, **programs):
        folder = tmp_path / "bin"
        folder.mkdir()
        for name, text in {"srun": SRUN, "scontrol": SCONTROL, **programs}.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        values = {"SLURM_JOB_ID": os.getpid(), "SLURM_JOB_NODELIST": "host[0-1]", "SLURM_JOB_NUM_NODES": 2}
        values |= {"GPUS_PER_NODE": 1, "SCONTROL_CALLS": tmp_path / "calls", "STARTED": tmp_path / "started"}
        values |= {"PATH": f"{folder}:{BINARIES}:{os.environ['PATH']}", "HF_HUB_OFFLINE": 1, "OMP_NUM_THREADS": 1}
        return subprocess.Popen(
            ["bash", str(SCRIPTS[0]), *arguments],
            cwd=ROOT,
            env={**os.environ, **{name: str(value) for name, value in values.items()}},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


def test_the_slurm_script_starts_a_run_on_both_machines(slurm, write_config, run_training, tmp_path):
    changes = {"train": {"num_epochs": None, "num_steps": 4}, "model": WITHOUT_DROPOUT, "data": {"val": None}}
    run_training("one", **changes)
    job = slurm("--config", str(write_config("job", **changes)), "--train.device", "cpu")
    _, errors = job.communicate(timeout=120)
    assert job.returncode == 0, errors
    assert read_losses(tmp_path / "job") == pytest.approx(read_losses(tmp_path / "one"), rel=1e-4)
    assert '"num_processes": 2' in (tmp_path / "job/checkpoints/latest/state.json").read_text()
    assert not (tmp_path / "calls").exists()


def test_a_job_whose_time_is_over_is_queued_again(slurm, tmp_path):
    job = slurm("--config", "run.yaml", accelerate=LAUNCHER)
    for node in (0, 1):
        while not (tmp_path / f"started{node}").exists():
            assert job.poll() is None
            time.sleep(0.05)
    tasks = subprocess.run(["pgrep", "-f", f"{tmp_path}/bin/srun"], capture_output=True, text=True).stdout.split()
    os.kill(int(tasks[0]), signal.SIGUSR1)
    printed, errors = job.communicate(timeout=60)
    assert job.returncode == 0, errors
    assert "will continue from the checkpoint" in printed
    assert (tmp_path / "calls").read_text() == f"requeue {os.getpid()}\n"


def test_a_failed_job_is_not_queued_again(slurm, tmp_path):
    job = slurm("--config", "run.yaml", accelerate="#!/bin/sh\nexit 2\n")
    job.communicate(timeout=60)
    assert job.returncode == 2
    assert not (tmp_path / "calls").exists()


@pytest.mark.skipif(shutil.which("shellcheck", path=f"{BINARIES}:{os.environ['PATH']}") is None, reason="no shellcheck")
def test_scripts_are_clean():
    program = shutil.which("shellcheck", path=f"{BINARIES}:{os.environ['PATH']}")
    done = subprocess.run([str(program), *map(str, SCRIPTS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
