"""Stand-ins for sbatch, srun and sacct: tasks run here, but see nothing of the submitter's environment or TMPDIR."""

import os
from pathlib import Path

_SBATCH = """#!/bin/bash
limit() { sed -n "s/^#SBATCH --$1=\\(0-\\)\\?\\([0-9]*\\).*/\\2/p" "$file"; }
file="$1"
(
  sleep 1 # submitit puts the pickles where the jobs look for them once it knows the job's number
  mv "$TMPDIR" "$TMPDIR.of_another_machine"
  for task in $(seq 0 "$(limit array)"); do
    env -i PATH="$PATH" HOME="$HOME" PYTHONPATH="$PYTHONPATH" OMP_NUM_THREADS=1 SLURM_JOB_NAME=train \\
      SLURM_ARRAY_JOB_ID=4242 SLURM_ARRAY_TASK_ID="$task" SLURM_JOB_ID=$((4242 + task)) SLURM_NNODES=1 SLURM_NODEID=0 \\
      SLURM_NODELIST=localhost SLURM_NTASKS="$(limit ntasks-per-node)" \\
      SLURM_NTASKS_PER_NODE="$(limit ntasks-per-node)" bash "$file" && state=COMPLETED || state=FAILED
    echo "4242_$task|$state|localhost" >>"@/states"
  done
) </dev/null >/dev/null 2>&1 &
echo "Submitted batch job 4242"
"""
_SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do
  case "$1" in --output | --error) log="$2"; shift 2 ;; *) shift ;; esac
done
log="${log//%A/$SLURM_ARRAY_JOB_ID}"
log="${log//%a/$SLURM_ARRAY_TASK_ID}"
for rank in $(seq 0 $((SLURM_NTASKS - 1))); do
  SLURM_PROCID="$rank" SLURM_LOCALID="$rank" "$@" >>"${log//%t/$rank}" 2>&1 &
  tasks+=($!)
done
for _ in "${tasks[@]}"; do
  wait -n || { failed=1; [ "$SLURM_KILL_BAD_EXIT" ] && kill -9 "${tasks[@]}"; }
done 2>/dev/null
exit ${failed:-0}
"""
_SACCT = "#!/bin/bash\necho 'JobID|State|NodeList'\ncat @/states 2>/dev/null || true\n"


def slurm(folder: Path) -> dict[str, str]:
    """The environment of a machine with these commands, and with a TMPDIR that the jobs do not see."""
    (folder / "bin").mkdir()
    (folder / "tmp").mkdir()
    for name, text in {"sbatch": _SBATCH, "srun": _SRUN, "sacct": _SACCT}.items():
        command = folder / "bin" / name
        command.write_text(text.replace("@", str(folder / "bin")) if name != "srun" else text)
        command.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(folder / "tmp")}
