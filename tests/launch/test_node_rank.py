"""Each host finds its number in what the cluster's starter sets, or in the settings."""

import pytest

from hir_core.config import LaunchConfig
from hir_core.errors import ConfigError
from hir_core.launch.node_rank import NodeRank, find_node_rank
from hir_core.launch.slurm import srun_command

TORCHRUN = {"GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2", "RANK": "9", "LOCAL_RANK": "1", "WORLD_SIZE": "16"}
SRUN = {"SLURM_STEP_NUM_NODES": "4", "SLURM_NODEID": "3", "SLURM_PROCID": "3", "SLURM_LOCALID": "0"}
MPI = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}


@pytest.mark.parametrize(
    ("env", "settings", "expected"),
    [
        (TORCHRUN, {}, NodeRank(1, 2, is_first_here=False)),
        (TORCHRUN | {"LOCAL_RANK": "0", "GROUP_RANK": "0"}, {}, NodeRank(0, 2)),
        (SRUN, {}, NodeRank(3, 4)),
        (SRUN | {"SLURM_LOCALID": "5"}, {}, NodeRank(3, 4, is_first_here=False)),
        (MPI | {"OMPI_COMM_WORLD_LOCAL_RANK": "0"}, {}, NodeRank(1, 2)),
        (MPI | {"OMPI_COMM_WORLD_LOCAL_RANK": "1"}, {}, NodeRank(1, 2, is_first_here=False)),
        ({"JOB_COMPLETION_INDEX": "1"}, {"nodes": 3}, NodeRank(1, 3)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, {}, NodeRank(1, 2)),
        (SRUN, {"nodes": 2, "node_rank": 1}, NodeRank(1, 2)),
        ({}, {"nodes": 2, "node_rank": 0}, NodeRank(0, 2)),
    ],
)
def test_the_environment_of_each_starter_is_understood(env, settings, expected):
    found = find_node_rank(LaunchConfig(launcher="external", **settings), env)
    assert found == expected
    assert found.is_head == (expected.node == 0 and expected.is_first_here)


@pytest.mark.parametrize(
    ("env", "settings", "message"),
    [
        ({}, {}, "says launch.node_rank and launch.nodes: start hir with one of these, or set it"),
        ({"JOB_COMPLETION_INDEX": "1"}, {}, "says launch.nodes"),
        ({"SLURM_NODEID": "0", "SLURM_NNODES": "2"}, {}, "says launch.node_rank and launch.nodes"),  # a batch script
        ({"JOB_COMPLETION_INDEX": "2"}, {"nodes": 2}, "this is host 2, and there are 2, counted from 0"),
        (TORCHRUN | {"GROUP_RANK": "one"}, {}, "GROUP_RANK is 'one': expected a number"),
    ],
)
def test_a_place_that_nothing_or_nonsense_tells_is_an_error(env, settings, message):
    with pytest.raises(ConfigError, match=message):
        find_node_rank(LaunchConfig(launcher="external", **settings), env)


def test_srun_starts_one_process_on_each_host_of_the_allocation_or_of_one_of_its_own(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_JOB_NUM_NODES"):
        monkeypatch.delenv(name, raising=False)
    config = LaunchConfig(launcher="slurm", nodes=2, srun=("--partition=gpu", "--gpus-per-node=8"))
    once = ["--ntasks-per-node=1", "--cpu-bind=none", "--job-name=hir"]
    assert srun_command(config) == ["srun", "--nodes=2", "--ntasks=2", *once, "--partition=gpu", "--gpus-per-node=8"]
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "3")
    inside = srun_command(LaunchConfig(launcher="slurm"))
    assert inside == ["srun", "--nodes=3", "--ntasks=3", *once, "--overlap"]
