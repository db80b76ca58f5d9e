"""Stacks that a rank is still writing are waited for: its main thread, which says where it is, comes last."""

import os
import subprocess
import sys
import threading
import time

from hir_core.launch import stack_traces
from hir_core.launch.stack_traces import STACK_SIGNAL, read_positions, stack_file

RANK = """
import sys, threading, time
from pathlib import Path
from hir_core.launch.stack_traces import write_stack_on_signal
write_stack_on_signal(Path(sys.argv[1]))
threading.Thread(target=time.sleep, args=(90,), daemon=True).start()
def hang():
    print("ready", flush=True)
    time.sleep(90)
hang()
"""


def test_the_stacks_of_a_process_are_read_at_once_and_not_before_they_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(stack_traces, "ANSWER_TIMEOUT_S", 60.0)  # so that a file that never seems whole shows
    script, log = tmp_path / "work.py", tmp_path / "rank-0.log"
    script.write_text(RANK)
    with subprocess.Popen([sys.executable, script, log], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            os.kill(process.pid, STACK_SIGNAL)
            started = time.monotonic()
            (position,) = read_positions([(0, log)])
            assert time.monotonic() - started < 30
        finally:
            process.kill()
    assert position.place.startswith("work.py:")
    assert position.place.endswith("`hang`")

    whole = stack_file(log).read_text()
    end_of_first_thread = whole.index("\n\n") + 1
    stack_file(log).write_text(whole[:end_of_first_thread])
    threading.Timer(0.3, stack_file(log).write_text, [whole]).start()
    assert read_positions([(0, log)]) == [position]
