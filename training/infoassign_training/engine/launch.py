"""How a process was started: alone, by torchrun, or by SLURM's srun; read from the environment, without torch."""

from collections.abc import MutableMapping

PORTS = range(20_000, 30_000)
"""Where the first process of a SLURM job listens, by the number of the job."""


def translate(environment: MutableMapping[str, str]) -> None:
    """Say in torchrun's words what srun has said; leave alone what torchrun or nobody started.

    Parameters
    ----------
    environment
        Changed in place: RANK, WORLD_SIZE and LOCAL_RANK, and MASTER_ADDR and MASTER_PORT unless they are there.

    Examples
    --------
    >>> step = {"SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "9", "SLURM_LOCALID": "1"}
    >>> job = {"SLURM_JOB_ID": "4711", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"}
    >>> environment = step | job
    >>> translate(environment)
    >>> [environment[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")]
    ['9', '16', '1', '10.0.0.7', '24711']
    """
    # The script of a job is a step of one task, whatever its job has.
    if "RANK" in environment or int(environment.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        return
    environment["RANK"] = environment["SLURM_PROCID"]
    environment["WORLD_SIZE"] = environment["SLURM_STEP_NUM_TASKS"]
    environment["LOCAL_RANK"] = environment["SLURM_LOCALID"]
    # srun is called on the job's first machine, where the first task is.
    environment.setdefault("MASTER_ADDR", environment["SLURM_LAUNCH_NODE_IPADDR"])
    environment.setdefault("MASTER_PORT", str(PORTS[int(environment["SLURM_JOB_ID"]) % len(PORTS)]))
