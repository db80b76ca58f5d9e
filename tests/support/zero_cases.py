"""The module that ranks of several tests run: many jobs in one launch, because starting a launch takes longer.

`python -m zero_cases JOB_DIR` does the steps of every `JOB_DIR/cases/*/job.json` with the library's own `Job`, and
leaves beside each: `facts.json` of the steps, in that of a sample step also what `counted_fetches` counts,
`losses.json` with every optimizer step's loss, `alive.json` with the bytes of the tensors that the case still holds,
and `logits.pt` of the weights as they are in memory. Of a model with an adapter there is also `frozen.pt`, the weights
beside it. A job of a reward model leaves only what its steps write.

Files beside a `job.json` change a case. `shard_bytes`: the size of a shard. `reset_every`: the number of optimizer
steps after which AdamW forgets its moments. `no_steps`: the train step makes no optimizer step. `stop_after`: the
number of optimizer steps after which the case ends, as if its launch had been killed.
"""

import contextlib
import dataclasses
import functools
import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hir_core.launch.rank import Rank
from hir_core.launch.rank_process import RankProcess
from hir_core.progress import Progress
from hir_core.store.files import write_json

IDS = [[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]]


@dataclasses.dataclass(frozen=True)
class RecordingRank(Rank):
    """A rank that keeps every reported loss."""

    losses: list[float] = dataclasses.field(default_factory=list)
    after_step: list[Callable[[int], None]] = dataclasses.field(default_factory=list)

    def progress(self, progress: Progress) -> None:
        if progress.step == "train" and progress.loss is not None:
            self.losses.append(progress.loss)
            for do in self.after_step:
                do(int(progress.done))


def logits(model: Any) -> Any:
    """Logits of fixed inputs; all ranks call it together where the weights are partitioned."""
    import torch

    ids = torch.tensor(IDS, device=next(model.parameters()).device)
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            return model.eval()(input_ids=ids, decoder_input_ids=ids).logits.cpu()
        return model.eval()(input_ids=ids).logits.cpu()


def alive_tensors() -> list[Any]:
    import torch

    gc.collect()
    tensors = [value for value in gc.get_objects() if type(value) in (torch.Tensor, torch.nn.Parameter)]
    return tensors + [tensor.grad for tensor in tensors if tensor.is_leaf and tensor.grad is not None]


def new_bytes(held: list[Any]) -> int:
    """Bytes of the storages of all living tensors, without those of the tensors in `held`."""
    known = {tensor.untyped_storage().data_ptr() for tensor in held}
    storages = [tensor.untyped_storage() for tensor in alive_tensors()]
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return sum(size for place, size in sizes.items() if place not in known)


@contextlib.contextmanager
def counted_fetches() -> Iterator[dict[str, int]]:
    """A context that counts how often ZeRO-3 fetches a module's weights, and how often it knows what comes next."""
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator as Coordinator

    counts, fetch = {"fetches": 0, "fetches_ahead": 0}, Coordinator.fetch_sub_module

    def counted(coordinator: Any, *arguments: Any, **options: Any) -> None:
        fetch(coordinator, *arguments, **options)
        counts["fetches"] += 1
        counts["fetches_ahead"] += coordinator.is_complete_trace()

    Coordinator.fetch_sub_module = counted
    try:
        yield counts
    finally:
        Coordinator.fetch_sub_module = fetch


def changed(rank: Rank, name: str) -> int | None:
    """The number in the file of this name beside the case's `job.json`."""
    path = rank.job_dir / name
    return int(path.read_text()) if path.exists() else None


def run_case(rank: RecordingRank, device: Any) -> None:
    import torch

    from hir_core.launch.job_spec import JobSpec, SampleStep, ScoreStep
    from hir_core.modeling import adapters, optimizer_state, saving, zero
    from hir_core.training import trainer
    from hir_core.worker.job import Job
    from hir_core.worker.reward_model import Classifier

    spec, held = JobSpec.read(rank.job_dir), alive_tensors()
    if isinstance(spec.steps[0], ScoreStep):
        Classifier(rank, spec, device).do(spec.steps[0])
        return
    job, whole_functions = Job(rank, spec, device), (saving.save_weights, optimizer_state.save, trainer.train)
    if (size := changed(rank, "shard_bytes")) is not None:
        saving.save_weights = functools.partial(saving.save_weights, shard_bytes=size)
        optimizer_state.save = functools.partial(optimizer_state.save, shard_bytes=size)
    if (every := changed(rank, "reset_every")) is not None:
        rank.after_step.append(lambda done: done % every or job.engine.optimizer.optimizer.state.clear())
    if changed(rank, "no_steps") is not None:
        trainer.train = lambda *_: trainer.Trained({}, [])
    if (last := changed(rank, "stop_after")) is not None:
        rank.after_step.append(functools.partial(stop_after, last))
    facts = []
    with contextlib.suppress(Stopped):
        for step in spec.steps:
            with counted_fetches() as counts:
                result = job.do(step)
            facts.append(result | (counts if isinstance(step, SampleStep) else {}))
    saving.save_weights, optimizer_state.save, trainer.train = whole_functions
    alive, case_logits = new_bytes(held), logits(job.model)
    if spec.adapter is not None:
        own = adapters.base_tensors(dict(job.model.named_parameters()))
        frozen = {name: tensor.to("cpu", copy=True) for name, tensor in zero.whole_tensors(own)}
        if rank.rank == 0:
            torch.save(frozen, rank.job_dir / "frozen.pt")
    if rank.rank == 0:
        write_json(rank.job_dir / "losses.json", rank.losses)
        write_json(rank.job_dir / "facts.json", facts)
        write_json(rank.job_dir / "alive.json", alive)
        torch.save(case_logits, rank.job_dir / "logits.pt")


class Stopped(BaseException):
    """A case has come as far as it should."""


def stop_after(last: int, done: int) -> None:
    if done == last:
        raise Stopped


def run_cases(rank_class: type[Rank], do: Callable[[Any, Any], None]) -> None:
    """Does every case of the folder that the command line names, each with a rank of that class in its own folder."""
    with RankProcess(Path(sys.argv[1])).job() as rank:
        from torch import distributed as dist

        gc.disable()
        import hir_core.worker.job
        import hir_core.worker.reward_model  # noqa: F401
        from hir_core.modeling import zero

        gc.freeze()  # what the imports made: each search of it for a case's tensors would take longer than the case
        gc.enable()
        device = zero.connect(rank.local_rank)
        for folder in sorted((rank.job_dir / "cases").iterdir()):
            print("case", folder.name)
            do(rank_class(folder, rank.rank, rank.world_size, rank.local_rank), device)
            gc.collect()
            dist.barrier()
        dist.destroy_process_group()
        rank.step_done(0)


def main() -> None:
    run_cases(RecordingRank, run_case)


if __name__ == "__main__":
    main()
