"""Garbage collection: it keeps what branches use, the best models and what these are made from, and survives kills.

The run is that of `finished_run`, two iterations, with weights in its models and a fork of its first iteration.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from finished_run import answered, commit, damage, drawn, hir, relabeled
from gc_runs import RULE, names, note, tree

from hir_core.config import RetentionConfig
from hir_core.config.load import parse_config
from hir_core.errors import RunLocked, StoreError, VersionCorrupt
from hir_core.inspect.verify import check_run
from hir_core.store.adapters import base_of
from hir_core.store.branches import BRANCHES, BranchLog, read_branches
from hir_core.store.gc import NO_BRANCHES, leftovers, plan_gc, release_files, remove, sweep
from hir_core.store.manifest import identity
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

WEIGHTS = b"w" * 1000
STATE = "optimizer-00001-of-00001.safetensors"


def weighty(
    store: Store,
    iteration: int,
    parents: list[VersionRef],
    config: dict | None = None,
    *,
    with_state: bool = False,
    file: str = "model.safetensors",
) -> VersionRef:
    draft = store.draft(identity("models", iteration, config or {"weights": True}, parents))
    (draft.path / "config.json").write_text("{}")
    (draft.path / file).write_bytes(WEIGHTS)
    if with_state:
        (draft.path / STATE).write_bytes(WEIGHTS * 2)
    return draft.commit()


@pytest.fixture
def store(small_run) -> Store:
    """A run whose three models have no weights; tests that need weights add models by `weighty`."""
    return small_run


@pytest.fixture
def fork(store) -> list[VersionRef]:
    """Another config of the second half of iteration 1: triples, a model of them, its evaluation, its samples."""
    parents = [store.resolve(name) for name in ("prompts@0", "samples@1", "rewards@1")]
    triples = commit(store, "triples", 1, parents, relabeled(1), {"fork": 1})
    model = weighty(store, 1, [store.resolve("models@0"), triples])
    samples = commit(store, "samples", 2, [parents[0], model], drawn(2, model), {"fork": 1})
    return [triples, model, answered(store, 1, parents[0], model), samples]


def on_main(store: Store, fork: list[VersionRef]) -> list[VersionRef]:
    return [ref for ref in store.versions() if ref not in fork]


def collect(store: Store, rule: RetentionConfig | None = None):
    with store.lock():
        plan = plan_gc(store, rule)
        remove(store, plan)
    return plan


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_without_branches_or_without_a_rule_everything_is_kept(store, fork):
    assert plan_gc(store, RULE).why_all == NO_BRANCHES
    note(store, on_main(store, fork), rule=None)
    plan = plan_gc(store)
    assert plan.why_all.startswith("branch main: its config has no `retention`")
    assert (names(kept.ref for kept in plan.kept), plan.removed) == (names(store.versions()), ())


def test_a_fork_that_no_branch_uses_is_removed_and_nothing_else(store, fork):
    used = on_main(store, fork)
    note(store, used)
    plan = collect(store)
    assert names(removed.ref for removed in plan.removed) == names(fork)
    assert store.versions() == used
    assert check_run(store)["problems"] == []


def test_children_are_removed_before_what_they_are_made_from(store, fork):
    note(store, on_main(store, fork))
    order = [removed.ref for removed in plan_gc(store).removed]
    assert order.index(fork[1]) > max(order.index(fork[2]), order.index(fork[3]))
    assert order.index(fork[0]) > order.index(fork[1])


def test_what_a_kept_version_is_made_from_stays_though_no_branch_uses_it(store):
    end = [store.resolve("models@2"), store.resolve("evaluations@2")]
    note(store, end)
    plan = plan_gc(store)
    assert names(removed.ref for removed in plan.removed) == {str(store.resolve("evaluations@1"))}
    why = {str(kept.ref): kept.why for kept in plan.kept}
    assert why[str(store.resolve("triples@2"))] == f"{end[0]} is made from it"
    assert why[str(end[0])] == "last model of branch main"


def test_each_branch_keeps_its_own(store, fork):
    main = on_main(store, fork)
    note(store, main)
    note(store, [store.resolve("prompts@0"), *fork], name="other")
    assert plan_gc(store).removed == ()
    note(store, [store.resolve("prompts@0"), *fork], name="other", rule=None)
    assert plan_gc(store).why_all.startswith("branch other: ")


def test_the_best_model_of_a_fork_is_kept_with_the_evaluation_that_shows_it(store, fork):
    best = weighty(store, 1, [store.resolve("models@0"), fork[0]], {"better": True})
    row = store.table(store.resolve("evaluations@2")).collect().to_dicts()[0] | {"model": str(best)}
    of = [store.resolve("prompts@0"), best]
    facts = {"metrics": {"overall": {"accuracy": 1.5}}}
    evaluation = commit(store, "evaluations", 1, of, [row], {"threshold": 1.0}, **facts)
    other_test = commit(store, "evaluations", 1, of, [row], {"threshold": 0.1}, metrics={"overall": {"accuracy": 9.0}})
    note(store, on_main(store, [*fork, best, evaluation, other_test]), rule=RetentionConfig(last=1, best=1))
    plan = plan_gc(store)
    assert names(removed.ref for removed in plan.removed) == names([*fork[1:], other_test])
    why = {str(kept.ref): (kept.why, kept.files) for kept in plan.kept}
    assert why[str(best)] == why[str(evaluation)] == ("accuracy 1.500, number 1 of 4", ())
    assert why[str(fork[0])][0] == f"{best} is made from it"


def test_a_damaged_manifest_stops_the_collection(store, fork):
    note(store, on_main(store, fork))
    damage(fork[2].path / "manifest.json")
    before = tree(store.run_dir)
    with pytest.raises(VersionCorrupt, match=r"manifest\.json is damaged"):
        collect(store)
    assert tree(store.run_dir) == before


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def models(store) -> list[VersionRef]:
    """Four models with weights, each made from the previous one, and their evaluations: the third is the best."""
    prompts, made = store.resolve("prompts@0"), list[VersionRef]()
    shown = store.table(store.resolve("evaluations@2")).collect().to_dicts()
    for iteration, accuracy in enumerate((0.1, 0.2, 0.9, 0.4)):
        made.append(weighty(store, iteration, [prompts, *made[-1:]]))
        row = shown[0] | {"model": str(made[-1])}
        facts = {"metrics": {"overall": {"accuracy": accuracy, "low": 0.0, "high": 1.0}}}
        commit(store, "evaluations", iteration, [prompts, made[-1]], [row], {"weighty": 1}, **facts)
    used = [prompts, *made, *(ref for ref in store.versions("evaluations") if "weighty" in store.manifest(ref).config)]
    note(store, used)
    return made


@pytest.mark.parametrize(
    ("last", "best", "without"),
    [(1, 0, [1, 2]), (1, 1, [1]), (2, 0, [1]), (3, 0, []), (1, 2, [1]), (1, 3, [])],
)
def test_a_rule_keeps_the_weights_of_the_last_the_best_and_the_first_models(store, models, last, best, without):
    plan = collect(store, RetentionConfig(last=last, best=best))
    assert names(kept.ref for kept in plan.released) == names(models[n] for n in without)
    there = {n: (ref.path / "model.safetensors").exists() for n, ref in enumerate(models)}
    assert there == {n: n not in without for n in range(4)}
    assert plan.bytes == 1000 * len(without) + sum(removed.bytes for removed in plan.removed)


def test_a_model_without_weights_is_sound_and_traced_but_not_loaded(store, models):
    collect(store)
    assert check_run(store)["problems"] == []
    assert store.manifest(models[1]).parts[1].bytes == 1000
    assert store.find(store.manifest(models[1]).identity) == models[1]
    with pytest.raises(StoreError, match=r"deleted \(retention of main last: 1, best: 0, 2.*delete .* and run"):
        store.folder(models[1])
    assert store.folder(models[3]) == models[3].path
    damage(models[1].path / "config.json")
    with pytest.raises(VersionCorrupt, match=r"config\.json has 3 bytes"):
        store.verify(models[1])


def test_weights_are_released_once_and_released_weights_take_no_space(store, models):
    before = check_run(store)["bytes"]
    freed = collect(store).bytes
    assert check_run(store)["bytes"] == before - freed
    assert collect(store).is_empty


def test_the_state_of_an_optimizer_goes_once_a_later_model_was_trained_from_it(store):
    """Or with the weights; that of iteration 0 stays."""
    prompts, made = store.resolve("prompts@0"), list[VersionRef]()
    for iteration in range(4):
        made.append(weighty(store, iteration, [prompts, *made[-1:]], with_state=True))
    note(store, [prompts, *made])
    text = hir("gc", "small", "--dry-run", "--last", "2", "--best", "0")
    assert "deletes the weights of 1 model; evaluations and samples stay\n" in text
    assert "deletes the optimizer's state of 1 model from which later models were trained\n" in text
    collect(store, RetentionConfig(last=2, best=0))
    files = [{path.name for path in ref.path.glob("*.safetensors")} for ref in made]
    assert files == [{"model.safetensors", STATE}, set(), {"model.safetensors"}, {"model.safetensors", STATE}]
    assert check_run(store)["problems"] == []
    assert store.folder(made[2]) == made[2].path
    listed = [line for line in hir("ls", "small").splitlines() if "weights deleted" in line]
    assert [str(ref) for ref in made if any(str(ref) in line for line in listed)] == [str(made[1])]


def test_the_model_that_an_adapter_belongs_to_keeps_its_weights_as_long_as_the_adapter(store):
    """The adapters are of a fork that no branch uses any more; the best of them is kept."""
    prompts = store.resolve("prompts@0")
    whole = weighty(store, 0, [prompts], {"old": 1})
    first = weighty(store, 1, [whole], {"lora": {}}, file="adapter_model.safetensors")
    second = weighty(store, 2, [first, whole], {"lora": {}}, file="adapter_model.safetensors")
    answered(store, 2, prompts, second)
    new = weighty(store, 0, [prompts])
    note(store, [prompts, new, *store.versions("evaluations")])
    assert base_of(store, second) == base_of(store, first) == base_of(store, whole) == whole
    collect(store, RetentionConfig(last=1, best=9))
    assert store.folder(whole) == whole.path
    assert store.folder(second) == second.path
    assert not (first.path / "adapter_model.safetensors").exists()
    assert check_run(store)["problems"] == []


def test_an_adapter_whose_model_has_lost_its_weights_is_reported(store):
    whole = weighty(store, 0, [store.resolve("prompts@0")])
    adapter = weighty(store, 1, [whole], {"lora": {}}, file="adapter_model.safetensors")
    with store.exclusive_access():
        release_files(whole, ["model.safetensors"], "by hand")
    sweep(store.run_dir)
    (problem,) = check_run(store)["problems"]
    assert problem["version"] == str(adapter)
    assert f"{whole} is needed for its weights, which `hir gc` has deleted" in problem["problem"]


def test_an_unfinished_run_keeps_all_weights(store, models):
    note(store, [store.resolve("samples@2")], end=False)
    assert plan_gc(store, RULE).released == ()


# --- branches --------------------------------------------------------------------------------------------------------


def versions_of(store: Store, name: str = "main") -> set[str]:
    branch = read_branches(store.run_dir)[name]
    return {*branch.versions, *branch.underway}


def test_a_branch_drops_what_an_earlier_config_used_only_when_the_new_one_is_complete(store, fork):
    old, new = on_main(store, fork), [store.resolve("prompts@0"), *fork]
    note(store, old)
    note(store, new, end=False)
    assert versions_of(store) == names([*old, *fork])
    assert not read_branches(store.run_dir)["main"].is_complete
    note(store, new)
    assert read_branches(store.run_dir)["main"].is_complete
    assert versions_of(store) == names(new)


def test_a_run_with_more_iterations_extends_its_branch_and_one_with_fewer_leaves_it(store):
    short, long = ([ref for ref in store.versions() if ref.iteration <= n] for n in (1, 2))
    note(store, short)
    note(store, long)
    assert versions_of(store) == names(long)
    note(store, short)
    assert versions_of(store) == names(long)


def test_a_branch_records_a_version_before_it_exists(store):
    model = identity("models", 7, {}, [])
    BranchLog(store.run_dir, "main", None).record(model)
    assert versions_of(store) == {f"models/{model.id}"}
    assert store.find(model) is None


@pytest.mark.parametrize("text", ["{", "[1]", '{"main": {"version": []}}', '{"main": 3}'])
def test_a_damaged_branches_file_is_one_clean_error(store, text):
    (store.run_dir / BRANCHES).write_text(text)
    with pytest.raises(StoreError, match=r"branches\.json is damaged.*delete it, and run the same config again"):
        plan_gc(store)


def test_neither_branch_nor_retention_decides_a_result():
    plain = {"run": "r", "iterations": 1, "model": {"type": "scratch"}, "prompts": [{"path": "a.jsonl"}]}
    without, other = parse_config(plain), parse_config({**plain, "branch": "x", "retention": {"last": 3}})
    assert without.fingerprint() == other.fingerprint()
    assert other.retention == RetentionConfig(last=3, best=1)


# --- readers, writers, kills -----------------------------------------------------------------------------------------


def test_nothing_is_removed_while_another_process_reads_or_writes(store, fork):
    note(store, on_main(store, fork))
    before = tree(store.run_dir)
    reader = Store(store.run_dir)
    rows = reader.table(fork[0])
    with pytest.raises(RunLocked, match="is being read by another process: nothing was removed"):
        collect(store)
    assert rows.collect().height == 5
    assert tree(store.run_dir) == before
    del reader
    with store.lock():
        assert "is being written by another process" in hir("gc", "--yes", code=2)
    assert tree(store.run_dir) == before
    assert names(removed.ref for removed in collect(store).removed) == names(fork)


def test_a_reader_never_waits_for_a_reader(store):
    readers = [Store(store.run_dir) for _ in range(3)]
    assert {reader.table(store.resolve("prompts@0")).collect().height for reader in readers} == {4}
    with pytest.raises(RunLocked), store.exclusive_access():
        pass
    del readers
    with store.exclusive_access():
        pass


def test_a_reader_whose_removal_was_refused_still_holds_its_shared_lock(store):
    others = [Store(store.run_dir) for _ in range(2)]
    for reader in (store, others[0]):
        reader.table(store.resolve("prompts@0"))
    with pytest.raises(RunLocked), store.exclusive_access():
        pass
    del others[0], reader
    with pytest.raises(RunLocked), others[0].exclusive_access():
        pass


SUPPORT = Path(__file__).parents[1] / "support"

# For each n, a child process dies at its n-th change to the file system. It is forked before polars starts its threads.
DIE_AT_EVERY_STEP = """
import os, shutil, signal, sys
from pathlib import Path
from fault_points import strike_at
from hir_core.store.gc import plan_gc, remove
from hir_core.store.store import Store

origin, place = Path(sys.argv[1]), Path(sys.argv[2])
for step in range(1, 1000):
    folder = Path(shutil.copytree(origin, place / f"{step:03d}"))
    pid = os.fork()
    if pid == 0:
        store = Store(folder)
        with store.lock():
            plan = plan_gc(store)
            strike_at(step, lambda: os.kill(os.getpid(), signal.SIGKILL))
            remove(store, plan)
            os._exit(0)
    if os.waitpid(pid, 0)[1] == 0:
        break
print(step)
"""


@pytest.mark.slow
def test_a_removal_killed_at_any_step_leaves_whole_versions_and_the_next_one_completes_it(store, fork, tmp_path):
    used = on_main(store, fork)
    note(store, used)
    extra = weighty(store, 1, [store.resolve("models@0")])  # kept, without its weights
    note(store, [*used, extra])
    environment = os.environ | {"PYTHONPATH": f"{SUPPORT}{os.pathsep}{SUPPORT.parents[1]}"}
    command = [sys.executable, "-c", DIE_AT_EVERY_STEP, str(store.run_dir), str(tmp_path / "killed")]
    steps = int(subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout)
    assert steps > 15
    seen = set()
    for step in range(1, steps + 1):
        killed = Store(tmp_path / "killed" / f"{step:03d}")
        versions = killed.versions()
        for ref in versions:
            killed.verify(ref)
            for parent in killed.manifest(ref).parents:
                killed.resolve(parent)
        seen.add((len(versions), bool(leftovers(killed.run_dir))))
        del killed
        last = Store(store.run_dir.parent / ".." / "killed" / f"{step:03d}")
        collect(last)
        assert names(last.versions()) == names([*used, extra])
        assert leftovers(last.run_dir) == []
        assert not (last.resolve(str(extra)).path / "model.safetensors").exists()
    assert seen >= {(17, False), (16, True), (13, True), (13, False)}


def test_a_removed_version_can_be_made_again(store, fork):
    evaluation = store.manifest(fork[2])
    note(store, on_main(store, fork))
    collect(store)
    again = [commit(store, "triples", 1, [store.resolve(n) for n in ("prompts@0", "samples@1", "rewards@1")],
                    relabeled(1), {"fork": 1})]  # fmt: skip
    again.append(weighty(store, 1, [store.resolve("models@0"), again[0]]))
    again.append(answered(store, 1, store.resolve("prompts@0"), again[1]))
    assert again == fork[:3]
    assert store.manifest(again[2]).identity == evaluation.identity
    collect(store)
    assert not any(ref.path.exists() for ref in fork)


def test_leftovers_of_a_killed_removal_do_not_block_the_next_one(store, fork):
    note(store, on_main(store, fork))
    shutil.copytree(fork[2].path, fork[2].path.with_name(f".gone-{fork[2].id}"))  # removed, killed, and made again
    assert leftovers(store.run_dir) != []
    assert names(removed.ref for removed in collect(store).removed) == names(fork)
    assert leftovers(store.run_dir) == []


def test_sweeping_deletes_no_version_and_no_file_but_weights(store, models):
    (models[1].path / ".released.json").write_text(json.dumps({"manifest.json": "x", "../x.safetensors": "y"}))
    before = tree(store.run_dir)
    assert sweep(store.run_dir) == []
    assert tree(store.run_dir) == before


# --- the command -----------------------------------------------------------------------------------------------------


def test_gc_says_what_it_would_free_and_why_it_keeps_the_rest(store, fork):
    note(store, on_main(store, fork))
    before = tree(store.run_dir)
    text = hir("gc", "small", "--dry-run")
    assert text.startswith("small · retention of main last: 1, best: 0\nkeeps 12 versions\n")
    assert f"  {store.resolve('prompts@0')}      branch main uses it\n" in text
    removed = text.partition("removes 4 versions that no branch uses and no kept version is made from\n")[2]
    assert {line.split()[0] for line in removed.splitlines()[:-1]} == names(fork)
    freed = sum(len(data) for name, data in before.items() for ref in fork
                if name.startswith(str(ref)) and "manifest" not in name)  # fmt: skip
    assert text.endswith(f"\nfrees {freed / 1000:.1f} kB\n")
    assert tree(store.run_dir) == before


def test_gc_removes_what_a_dry_run_says_and_the_next_one_nothing(store, fork):
    note(store, on_main(store, fork))
    promised = json.loads(hir("gc", "--dry-run", "--json"))
    done = json.loads(hir("gc", "--yes", "--json"))
    assert {**promised, "is_done": True} == done
    assert {removed["version"] for removed in done["removed"]} == names(fork)
    assert not any(ref.path.exists() for ref in fork)
    assert hir("gc", "--yes").endswith("\nnothing to remove\n")
    assert hir("verify").endswith(" · sound\n")


def test_gc_without_a_rule_removes_nothing_and_says_how_to_give_one(store, fork):
    note(store, on_main(store, fork), rule=None)
    assert "nothing to remove: all 16 versions are kept: branch main: its config has no `retention`" in hir(
        "gc", "--yes"
    )
    assert json.loads(hir("gc", "--dry-run", "--last", "1", "--json"))["rules"] == "main last: 1, best: 1"


def test_gc_without_a_terminal_needs_dry_run_or_yes(store, fork):
    note(store, on_main(store, fork))
    assert "no terminal to ask at: give --dry-run or --yes" in hir("gc", code=2)
    assert "give one of them" in hir("gc", "--dry-run", "--yes", code=2)
    assert all(ref.path.exists() for ref in fork)


@pytest.mark.parametrize(("reply", "stays"), [("n\n", True), ("y\n", False), ("\n", True)])
def test_gc_asks_at_a_terminal(store, fork, reply, stays, monkeypatch):
    monkeypatch.setattr("flows.cli.maintenance._is_terminal", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda _: reply == "y\n")
    note(store, on_main(store, fork))
    text = hir("gc")
    assert text.endswith("nothing was removed\n" if stays else " removed\n")
    assert all(ref.path.exists() == stays for ref in fork)


def test_every_command_that_shows_a_model_says_that_its_weights_are_released(store, models):
    collect(store)
    listing = hir("ls", "small").splitlines()
    assert [line.endswith("weights deleted") for line in listing if str(models[1]) in line] == [True]
    assert [line.endswith("weights deleted") for line in listing if str(models[3]) in line] == [False]
    assert "model.safetensors · 1.0 kB · sha256 " in hir("show", str(models[1]))
    assert " · deleted: retention of main last: 1, best: 0" in hir("show", str(models[1]))
    assert list(json.loads(hir("show", str(models[1]), "--json"))["released"]) == ["model.safetensors"]
