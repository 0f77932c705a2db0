"""A merge submitted to the cluster by the sbatch file that users get, and what can be seen of it from outside."""

from pathlib import Path

from cluster import Cluster, wait_for

from gopd_lightning.metrics_file import read_rows

ROOT = Path(__file__).parents[2]
SMALL = Path(__file__).with_name("small.yaml")
CONFIGS = (ROOT / "configs/multi_teacher_merge.yaml", ROOT / "configs/cluster/fsdp2.yaml", SMALL)
STEPS = 20
TIMED = ("time/", "speed/")
ARGUMENTS = [word for config in CONFIGS for word in ("--config", str(config))]


def losses(run: Path) -> list[dict[str, str]]:
    """The metrics of a run without those that are measured by the clock."""
    return [{k: v for k, v in row.items() if not k.startswith(TIMED)} for row in read_rows(run / "metrics.csv")]


def seconds(run: Path, steps: int) -> list[dict[str, str]]:
    """What the clock said of the first steps: two runs of a step never say the same."""
    return [{k: v for k, v in row.items() if k.startswith(TIMED)} for row in read_rows(run / "metrics.csv")][:steps]


def wait_for_row(run: Path, step: int) -> None:
    file = run / "metrics.csv"
    wait_for(lambda: file.exists() and len(read_rows(file)) >= step, 180, f"step {step} in {run}")


def process_with(*environment: str) -> int:
    """The process that was started with these variables, not those that it started itself."""
    marks = {word.encode() for word in environment}
    found = {int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and marks <= _environment(p)}
    (first,) = [process for process in found if parent(process) not in found]
    return first


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])


def _environment(process: Path) -> set[bytes]:
    try:
        return {*(process / "environ").read_bytes().split(b"\0")}
    except OSError:  # it has ended
        return set()


class Job:
    """A job of two nodes with one rank each, submitted at once; its run folder is `folder`."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.log = folder / "job.log"
        own = ("--parsable", f"--chdir={ROOT}", f"--output={self.log}")
        run = ("--trainer.default_root_dir", str(folder))
        script = str(ROOT / "configs/cluster/gopd.sbatch")
        self.id = int(cluster.run("sbatch", *own, script, *ARGUMENTS, *run))

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait_for_state(self, state: str, limit: float = 120) -> None:
        over = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}

        def there() -> bool:
            now = self.cluster.show(self.id, "JobState")
            assert now == state or now not in over, f"job {self.id} is {now}, not {state}: {self.said[-3000:]}"
            return now == state

        wait_for(there, limit, f"job {self.id} {state}: {self.said[-3000:]}")

    def nodes(self) -> list[str]:
        """Names of the job's nodes by rank."""
        return self.cluster.run("scontrol", "show", "hostnames", self.cluster.show(self.id, "NodeList")).split()

    def process(self, rank: int) -> int:
        """The process of a rank."""
        return process_with(f"SLURM_JOB_ID={self.id}", f"SLURM_PROCID={rank}")
