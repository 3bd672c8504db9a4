#!/usr/bin/env bash
# Train on two machines with eight GPUs each under SLURM, through the end of a time slot and a preemption.
# Command: sbatch configs/slurm/two_machines_eight_gpus.sh --config FILE [--train.precision bf16 ...]
# Other sizes: sbatch --nodes 8 --gpus-per-node 4 ... (GPUS_PER_NODE=4 where SLURM does not set SLURM_GPUS_ON_NODE);
# FSDP2: export ACCELERATE_CONFIG=configs/accelerate/fsdp2_eight_gpus.yaml before.
# Submit it in the repository, with the environment active, on a disk that all machines see.
#
# Two minutes before the time is over, SLURM sends USR1. The training finishes its step, saves and ends; the job is then
# queued again and continues from there, as after a preemption or the failure of a machine.
#SBATCH --job-name=bimodal
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
set -euo pipefail

export ACCELERATE_CONFIG=${ACCELERATE_CONFIG:-configs/accelerate/two_machines_eight_gpus.yaml}
export GPUS_PER_NODE=${GPUS_PER_NODE:-${SLURM_GPUS_ON_NODE:-8}}
mapfile -t machines < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_HOST=${machines[0]}
export MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))} # jobs that share a machine need other ports
readonly SAVED=75 # a task's status after USR1

# What runs on each machine. The launcher ignores USR1; its children, the training processes, get it.
# shellcheck disable=SC2016 # expanded on the machine
readonly TASK='
trap "" USR1
accelerate launch --config_file "$ACCELERATE_CONFIG" \
  --num_machines "$SLURM_JOB_NUM_NODES" --num_processes "$((SLURM_JOB_NUM_NODES * GPUS_PER_NODE))" \
  --machine_rank "$SLURM_NODEID" --main_process_ip "$MASTER_HOST" --main_process_port "$MASTER_PORT" \
  -m bimodal_cl.train --resume latest "$@" &
launcher=$! signalled=
trap "signalled=1; pkill -USR1 -P $launcher" USR1
status=0
while wait "$launcher" || status=$?; kill -0 "$launcher" 2>/dev/null; do status=0; done
if [ -n "$signalled" ] && [ "$status" = 0 ]; then status=75; fi
exit "$status"
'

status=0
srun --kill-on-bad-exit=0 bash -c "$TASK" task "$@" || status=$?
if [ "$status" = "$SAVED" ]; then
  echo "The time is over: job $SLURM_JOB_ID is queued again and will continue from the checkpoint."
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$status"
