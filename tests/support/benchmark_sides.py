"""Sides of benchmark cases whose cost is known: they compute, sleep, hold memory or fail for a given time."""

import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks.measure import Work
from tests.benchmarks.side_process import Clock

BUSY = "import sys, time\nwhile time.process_time() < float(sys.argv[1]): pass\nopen('done', 'w').close()"
ORPHAN = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', *sys.argv[1:]])"


def compute(clock: Clock, inputs: Path, cpu_s: float, name: str = "", setup_s: float = 0.0) -> Work:
    spend(setup_s)
    with clock:
        spend(cpu_s)
    return Work(2.0, {"name": name, "inputs": len(list(inputs.iterdir()))})


def compute_below(clock: Clock, inputs: Path, cpu_s: float, is_orphaned: bool, held_mib: int = 0) -> Work:
    """Computes in a child, or in an orphan, which ends later than its parent."""
    code = f"held = b'x' * ({held_mib} << 20)\n{BUSY}"
    with clock:
        if is_orphaned:
            subprocess.run([sys.executable, "-c", ORPHAN, code, str(cpu_s)], check=True)
            while not Path("done").exists():
                time.sleep(0.01)
        else:
            subprocess.run([sys.executable, "-c", code, str(cpu_s)], check=True)
    return Work(1.0)


def fail(clock: Clock, inputs: Path) -> Work:
    with clock:
        raise ValueError("not today")


def spend(cpu_s: float) -> None:
    end = time.process_time() + cpu_s
    while time.process_time() < end:
        pass


def prepare(inputs: Path) -> None:
    (inputs / "table").write_text("")
