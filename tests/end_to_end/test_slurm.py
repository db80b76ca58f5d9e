"""Slurm itself, on a cluster of one node, where its packages are installed: `launch.launcher: slurm` from a login node,
and the batch file of ds_configs/README.md, which is preempted and continues.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest
from cli_run import assert_same_content, command, environment, hir, left_alive, wait_until, write_config
from slurm_cluster import SlurmCluster, missing, slurm_cluster

README = Path(__file__).resolve().parents[2] / "ds_configs" / "README.md"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("prefect")


def test_a_run_from_the_login_node_makes_what_a_run_without_slurm_makes(cluster, home, tmp_path):
    config = write_config(tmp_path, launch={"processes": 1})
    hir(tmp_path, home, "run", str(config), "runs_dir=plain")
    changes = ["runs_dir=by-slurm", "launch.launcher=slurm", "launch.nodes=1"]
    done = subprocess.run(
        command("run", str(config), *changes),
        cwd=tmp_path, env=cluster.environment | environment(home), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_content(tmp_path / "plain" / "tiny", tmp_path / "by-slurm" / "tiny")


def test_a_batch_job_that_is_preempted_continues_at_its_optimizer_step(cluster, home, tmp_path):
    training = {
        "epochs": 40,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "checkpoint_every_s": 3600,
        "label_smoothing": 0.0,
    }
    config = write_config(tmp_path, training=training, launch={"processes": 1})
    job = submit(cluster, home, tmp_path, config)
    log, progress = tmp_path / f"hir-{job}.log", tmp_path / "runs/tiny/launches/0001/progress.json"
    wait_until(lambda: progress.exists() and '"train"' in progress.read_text(), f"training:\n{read(log)}")
    cluster.call("scontrol", "requeue", job)
    wait_until(lambda: "its checkpoint is kept" in read(log), "a checkpoint when the job was asked to end")
    wait_until(lambda: cluster.state(job) in ("COMPLETED", "FAILED"), "the end of the job")
    assert cluster.state(job) == "COMPLETED", read(log)
    [stopped] = re.findall(r"stopped after optimizer step (\d+) of", read(log))
    assert re.search(rf"model 1 continues at optimizer step {stopped} of ", read(log)), read(log)
    assert not left_alive(str(home))


def submit(cluster: SlurmCluster, home: Path, folder: Path, config: Path) -> str:
    """Hands the README's batch file to Slurm, for this node and this config; returns the number of the job."""
    [script] = re.findall(r"^```bash\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    for text, here in {
        "--nodes=2": "--nodes=1",
        "#SBATCH --gpus-per-node=8\n": "",
        "--cpus-per-task=64": "--cpus-per-task=1",
        "hir run zero3": f"{command()[0]} run {config}",
        "/shared/runs": str(folder / "runs"),
    }.items():
        assert text in script
        script = script.replace(text, here)
    (folder / "hir.sbatch").write_text(script)
    changed = environment(home).items() - os.environ.items()
    exports = ",".join(["ALL", *(f"{name}={value}" for name, value in changed)])
    return cluster.call("sbatch", "--parsable", f"--export={exports}", "hir.sbatch", cwd=folder).strip()


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
