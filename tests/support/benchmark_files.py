"""The folder with task files of BIG-bench and BIG-Bench-Hard, which the project does not ship, and a skip without it.

The folder has `bbh/TASK.json` and `bigbench/TASK/task.json`, at any depth. It is the one that HIR_BENCHMARK_FILES
names, else `shared/data` beside the checkout.
"""

import os
from pathlib import Path

import pytest

BENCHMARKS = Path(os.environ.get("HIR_BENCHMARK_FILES") or Path(__file__).resolve().parents[3] / "shared" / "data")
BBH, BIGBENCH = BENCHMARKS / "bbh", BENCHMARKS / "bigbench"
needs_benchmarks = pytest.mark.skipif(
    not BENCHMARKS.is_dir(),
    reason=f"the benchmarks' files are not at {BENCHMARKS}; HIR_BENCHMARK_FILES can name their folder",
)
