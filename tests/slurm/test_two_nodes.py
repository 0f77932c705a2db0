"""Two SLURM nodes, one rank each: warned, the job goes on where it was; a dead rank ends it, a lost node moves it."""

import os
import re
import signal

import pytest
from jobs import STEPS, Job, losses, parent, seconds, wait_for_row

pytestmark = pytest.mark.timeout(400)


def test_both_nodes_train_every_step(whole):
    assert [row["step"] for row in losses(whole.folder)] == [str(step + 1) for step in range(STEPS)]
    assert "on p[1-2], start 1" in whole.said
    shards = sorted(file.name for file in (whole.folder / "checkpoints/last.ckpt").glob("*.distcp"))
    assert shards == ["__0_0.distcp", "__1_0.distcp"]


def test_a_warned_job_requeues_itself_and_goes_on_where_it_was(cluster, whole, tmp_path):
    job = Job(cluster, tmp_path)
    wait_for_row(tmp_path, 7)
    cluster.run("scancel", "--signal=USR1", str(job.id))  # as `#SBATCH --signal` does: to the ranks, not to the shell
    job.wait_for_state("PENDING", 60)
    assert f"requeueing job {job.id}" in job.said
    assert not list(tmp_path.glob("hpc_ckpt*"))  # Lightning's own requeue leaves them
    stopped = int(re.search(r"last.ckpt at step (\d+)", job.said)[1])
    assert 7 <= stopped < STEPS
    assert len(losses(tmp_path)) == stopped
    clock = seconds(tmp_path, stopped)
    job.wait_for_state("COMPLETED", 180)
    assert (cluster.show(job.id, "Restarts"), "start 2" in job.said) == ("1", True)
    assert losses(tmp_path) == losses(whole.folder)
    assert seconds(tmp_path, stopped) == clock  # not run again


def test_a_killed_rank_ends_the_job_within_a_minute_and_the_log_says_which(cluster, tmp_path):
    job = Job(cluster, tmp_path)
    wait_for_row(tmp_path, 2)
    os.kill(job.process(rank=1), signal.SIGKILL)
    job.wait_for_state("FAILED", 60)
    first = next(line for line in job.said.splitlines() if re.match(r"srun: error: \w+: task", line))
    assert first == f"srun: error: {job.nodes()[1]}: task 1: Killed"
    assert f"job {job.id} failed (srun's code: " in job.said


def test_a_rank_that_hangs_is_missed_named_and_the_job_goes_on_from_its_last_checkpoint(cluster, whole, tmp_path):
    job = Job(cluster, tmp_path)
    wait_for_row(tmp_path, 7)
    os.kill(job.process(rank=1), signal.SIGSTOP)
    job.wait_for_state("PENDING", 60)
    assert re.search(r"gopd: nothing heard of rank 1 on \S+ for 8 s", job.said), job.said[-2000:]
    assert f"requeueing job {job.id}" in job.said
    job.wait_for_state("COMPLETED", 180)
    assert losses(tmp_path) == losses(whole.folder)


def test_a_lost_node_moves_the_job_to_another_where_it_goes_on_from_its_last_checkpoint(cluster, whole, tmp_path):
    job = Job(cluster, tmp_path)
    wait_for_row(tmp_path, 7)
    clock, lost = seconds(tmp_path, 5), job.nodes()[1]
    rank = job.process(rank=1)
    cluster.lose_node(lost, parent(rank), rank)  # the parent is SLURM's shepherd of the rank
    job.wait_for_state("PENDING", 60)
    assert f"Node failure on {lost}" in job.said
    job.wait_for_state("COMPLETED", 180)
    assert lost not in job.nodes()
    assert losses(tmp_path) == losses(whole.folder)
    assert seconds(tmp_path, 5) == clock  # not run again
    cluster.start_node(lost)
