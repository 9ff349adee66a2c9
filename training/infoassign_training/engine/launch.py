"""How a process was started: alone, by torchrun, or by SLURM's srun; read from the environment, without torch."""

import re
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
    >>> job = {"SLURM_JOB_ID": "4711", "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "node[07-08]"}
    >>> environment = step | job
    >>> translate(environment)
    >>> [environment[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")]
    ['9', '16', '1', 'node07', '24711']
    """
    # The script of a job is a step of one task, whatever its job has.
    if "RANK" in environment or int(environment.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        return
    environment["RANK"] = environment["SLURM_PROCID"]
    environment["WORLD_SIZE"] = environment["SLURM_STEP_NUM_TASKS"]
    environment["LOCAL_RANK"] = environment["SLURM_LOCALID"]
    alone = environment.get("SLURM_STEP_NUM_NODES", "1") == "1"
    environment.setdefault("MASTER_ADDR", "127.0.0.1" if alone else first_host(environment["SLURM_STEP_NODELIST"]))
    # Steps of a job may run side by side.
    number = int(environment["SLURM_JOB_ID"]) + 101 * int(environment.get("SLURM_STEP_ID", "0"))
    environment.setdefault("MASTER_PORT", str(PORTS[number % len(PORTS)]))


def first_host(names: str) -> str:
    """Return the first of the names of hosts as SLURM writes them.

    Examples
    --------
    >>> first_host("node[007-012,020]"), first_host("a1,b[1-2]"), first_host("gpu[3,5]-ib,gpu9")
    ('node007', 'a1', 'gpu3-ib')
    """
    found = re.match(r"([^,\[]*)(?:\[(\w+)[^\]]*\])?([^,\[]*)", names)
    assert found is not None
    return "".join(part or "" for part in found.groups())
