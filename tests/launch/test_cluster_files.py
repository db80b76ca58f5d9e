"""The batch file for Slurm and the JobSet for Kubernetes that ds_configs/README.md shows."""

import re
import subprocess
from pathlib import Path

import yaml

from hir_core.config.launch import LaunchConfig
from hir_core.launch.node_rank import NodeRank, find_node_rank

README = Path(__file__).resolve().parents[2] / "ds_configs" / "README.md"
# Of `man sbatch`.
SBATCH = {
    "job-name",
    "nodes",
    "ntasks-per-node",
    "gpus-per-node",
    "cpus-per-task",
    "time",
    "requeue",
    "open-mode",
    "output",
}


def block(language: str) -> str:
    [text] = re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    return text


def settings_in(words: list[str]) -> dict[str, str]:
    """The settings of the section `launch` on a command line."""
    changes = (word.removeprefix("launch.").partition("=") for word in words if word.startswith("launch."))
    return {name: value for name, _, value in changes}


def test_the_batch_file_is_a_script_that_starts_hir_once_on_each_host():
    script = block("bash")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True, timeout=10)
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, re.MULTILINE))
    assert set(options) <= SBATCH
    assert options["ntasks-per-node"] == "1"
    command = script.splitlines()[-1].split()
    assert command[:2] == ["exec", "srun"]
    assert f"--cpus-per-task={options['cpus-per-task']}" in command
    config = LaunchConfig(**settings_in(command))
    step = {"SLURM_STEP_NUM_NODES": options["nodes"], "SLURM_NODEID": "1", "SLURM_LOCALID": "0"}
    assert find_node_rank(config, step) == NodeRank(1, int(options["nodes"]))


def test_the_job_set_starts_hir_in_pods_that_are_counted_and_share_a_folder():
    job_set = yaml.safe_load(block("yaml"))
    assert (job_set["apiVersion"], job_set["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    [replicated] = job_set["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert (replicated["replicas"], job["completionMode"]) == (1, "Indexed")
    assert job["completions"] == job["parallelism"]
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] in ("Never", "OnFailure"), "of a Job"
    [container] = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    [runs_dir] = [word for word in container["command"] if word.startswith("runs_dir=")]
    assert any(runs_dir.startswith(f"runs_dir={mount['mountPath']}/") for mount in container["volumeMounts"])
    settings = settings_in(container["command"])
    config = LaunchConfig(launcher=settings["launcher"], nodes=int(settings["nodes"]))
    assert find_node_rank(config, {"JOB_COMPLETION_INDEX": "1"}) == NodeRank(1, job["completions"])
    assert pod["terminationGracePeriodSeconds"] > 2 * config.grace_s
