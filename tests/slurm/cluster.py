"""A real SLURM on this machine: munge, slurmctld and a slurmd a node, all of our own, in a folder of their own."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

NODES = ("p1", "p2", "p3")
PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "sinfo")
CONF = """\
ClusterName=gopd
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
JobRequeue=1
KillWait=10
SlurmdTimeout=20
SlurmdParameters=config_overrides
NodeName=p1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=4000 State=UNKNOWN
NodeName=p2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=4000 State=UNKNOWN
NodeName=p3 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[3]} CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=p[1-3] Default=YES State=UP MaxTime=INFINITE OverSubscribe=YES
"""


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Return when the condition holds; fail, saying what was waited for, when it does not in time."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.05)


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Cluster:
    """Three nodes, all on 127.0.0.1: two for a job and one to spare; `stop` leaves neither processes nor files."""

    def __init__(self, folder: Path) -> None:
        missing = [program for program in PROGRAMS if not shutil.which(program, path=self._path())]
        assert not missing, f"no {', '.join(missing)} here: `make test-slurm` installs SLURM on Debian"
        self.folder = folder
        folder.chmod(0o755)  # munge's clients must reach its socket
        conf = CONF.format(
            host=socket.gethostname().split(".")[0], user=getpass.getuser(), folder=folder, ports=free_ports(4)
        )
        (folder / "slurm.conf").write_text(conf)
        # names of the nodes mean nothing to this machine's resolver
        self.env = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "MASTER_ADDR": "127.0.0.1"}
        self.env |= {"PATH": self._path(), "OMP_NUM_THREADS": "1"}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start the daemons and wait until all nodes are idle."""
        key = self.folder / "munge.key"
        self.run("mungekey", "--create", f"--keyfile={key}")
        files = [f"--{name}-file={self.folder}/munged.{name}" for name in ("log", "pid", "seed")]
        self._daemon("munged", "munged", "-F", f"--key-file={key}", f"--socket={self.folder}/munge.socket", *files)
        wait_for((self.folder / "munge.socket").exists, 10, "munged")
        self._daemon("slurmctld", "slurmctld", "-D", "-c")
        for node in NODES:
            self.start_node(node)

    def start_node(self, node: str) -> None:
        """Start a node's daemon and wait until every node that has one is idle."""
        self._daemon(node, "slurmd", "-D", "-N", node)
        up = ",".join(sorted(self._daemons.keys() & {*NODES}))
        states = ("sinfo", "--noheader", "--Node", "--format=%T", f"--nodes={up}")
        wait_for(lambda: {*self.run(*states, check=False).split()} == {"idle"}, 60, f"idle nodes {up}")

    def lose_node(self, node: str, *others: int) -> None:
        """Kill a node's daemon and other processes of it at once."""
        for process in (self._daemons[node].pid, *others):
            os.kill(process, signal.SIGKILL)
        self._daemons.pop(node).wait()

    def stop(self) -> None:
        """Cancel what runs, end the daemons in reverse order, remove the folder."""
        try:
            self.run("scancel", "--user", getpass.getuser(), check=False)
            wait_for(lambda: not self.run("squeue", "--noheader", check=False), 30, "an empty queue")
        finally:
            for daemon in reversed(self._daemons.values()):
                _end(daemon)
            shutil.rmtree(self.folder)

    def run(self, *command: str, check: bool = True) -> str:
        """Standard output of a client program."""
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def show(self, job: int, field: str) -> str:
        """One field of `scontrol show job`, such as JobState."""
        fields = dict(
            pair.split("=", 1) for pair in self.run("scontrol", "show", "job", str(job)).split() if "=" in pair
        )
        return fields[field]

    def _daemon(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("wb") as out:
            self._daemons[name] = subprocess.Popen(command, env=self.env, stdout=out, stderr=out)

    @staticmethod
    def _path() -> str:
        """Where `gopd` is, then everything else; daemons are in /usr/sbin."""
        return os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"))


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(20)
    except subprocess.TimeoutExpired:
        daemon.kill()
