"""The status line of `hir run`: as a user sees it in terminals of several widths, and where there is no terminal."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cli_run import command, write_config
from fake_terminal import Terminal

from flows.terminal.progress_bar import progress_text
from hir_core.progress import Progress

SAMPLING = Progress("sample", 12_345, 20_480, "samples", tokens=1_234_567, seconds=100.0)
"""12,345.67 tokens per second; 100 / 12,345 * 8,135 = 65.9 s for the rest."""
TRAINING = Progress("train", 15, 60, "steps", tokens=6_000, seconds=100.0, loss=2.5)
"""60 tokens per second; 100 / 15 * 45 = 300 s, which is 5 min."""
SHOW = """
import sys, time
from flows.terminal import progress_bar
from hir_core.progress import Progress

progress_bar.SILENCE_S = 0.0
with progress_bar.StatusLine() as status_line:
    status_line.update("starting the launch for model 0", Progress("launch"))
    time.sleep(0.2)
    status_line.print_above("a line that scrolls")
    print("and what a reward prints")
    status_line.update("sampling from model 12", {sampling!r})
    time.sleep(0.2)
    {more}
print("done")
"""


def show(more: str = "") -> list[str]:
    return [sys.executable, "-c", SHOW.format(sampling=SAMPLING, more=more)]


# --- what it says ----------------------------------------------------------------------------------------------------


def test_progress_has_the_amount_done_the_speed_and_the_time_left():
    assert progress_text(SAMPLING) == "12,345 of 20,480 samples · 12,346 tok/s · 66 s left"
    assert progress_text(TRAINING) == "15 of 60 steps · 60 tok/s · loss 2.500 · 5 min left"


def test_the_time_left_is_told_once_a_percent_is_done():
    """The first outputs of a batch end long before the others, and at their pace it would take hours."""
    first, later = (replace(SAMPLING, done=done, tokens=0) for done in (204, 205))
    assert progress_text(first) == "204 of 20,480 samples"
    assert progress_text(later).endswith("205 of 20,480 samples · 3 h left")


@pytest.mark.parametrize(
    ("room", "text"),
    [
        (51, "15 of 60 steps · 60 tok/s · loss 2.500 · 5 min left"),
        (50, "25 % · 60 tok/s · loss 2.500 · 5 min left"),
        (40, "25 % · 60 tok/s · 5 min left"),
        (27, "25 % · 5 min left"),
        (16, "5 min left"),
        (9, "25 %"),
        (3, ""),
    ],
)
def test_what_matters_least_is_left_out_where_there_is_no_room(room, text):
    assert progress_text(TRAINING, room) == text


# --- in a terminal ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (40, "sampling from model 12 66 s left"),
        (60, "sampling from model 12 60 % · 66 s left"),
        (80, "sampling from model 12 60 % · 12,346 tok/s · 66 s left"),
        (200, "sampling from model 12 12,345 of 20,480 samples · 12,346 tok/s · 66 s left"),
    ],
)
def test_a_terminal_has_one_line_below_those_that_scroll(columns, line, tmp_path):
    with Terminal(columns, show(), tmp_path) as terminal:
        assert terminal.end() == 0
    bars = [frame for frame in terminal.frames if "sampling" in frame]
    assert " ".join(word for word in bars[-1].split() if word[0] not in "━╸╺") == line
    assert ("━" in bars[-1]) == (columns >= 60)
    assert max(map(len, terminal.frames)) <= columns - 3, "a ^C fits beside it"
    assert terminal.lines == ["a line that scrolls", "and what a reward prints", "done"], "nothing of it stays"
    assert not terminal.screen.cursor.hidden
    assert b"\x1b[2J" not in terminal.written, "the screen is never cleared, so it does not flicker"


def test_an_error_leaves_the_terminal_as_it_was(tmp_path):
    with Terminal(80, show("1 / 0"), tmp_path) as terminal:
        assert terminal.end() == 1
    assert not terminal.screen.cursor.hidden
    assert not any("━" in line for line in terminal.lines)
    assert terminal.lines[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("columns", [40, 80])
@pytest.mark.parametrize("activity", ["starting", "sampling from model 12"])
def test_ctrl_c_leaves_nothing_of_it(activity, columns, tmp_path):
    more = f"""status_line.update({activity!r}, None if {activity!r} == "starting" else status_line.progress)
    time.sleep(60)"""
    with Terminal(columns, show(more), tmp_path) as terminal:
        terminal.wait_for(lambda: any(frame.startswith(activity) for frame in terminal.frames))
        terminal.press(b"\x03")
        assert terminal.end() == -2, "nobody handles it here"
    assert not terminal.screen.cursor.hidden
    assert not any("━" in line or line.startswith("sampling") for line in terminal.lines)
    assert terminal.lines[-1] == "KeyboardInterrupt"


# --- where there is none ---------------------------------------------------------------------------------------------

PLAIN = [
    "  starting the launch for model 0",
    "a line that scrolls",
    "and what a reward prints",
    "  sampling from model 12: 12,345 of 20,480 samples · 12,346 tok/s · 66 s left",
    "done",
]


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"CI": "true"}], ids=str)
def test_a_terminal_that_cannot_or_should_not_redraw_gets_plain_lines(setting, tmp_path):
    with Terminal(100, show(), tmp_path, **setting) as terminal:
        assert terminal.end() == 0
    assert terminal.lines == PLAIN
    assert b"\x1b" not in terminal.written


def test_a_pipe_gets_plain_lines_whatever_is_forced():
    environment = os.environ | {"FORCE_COLOR": "1"}
    ended = subprocess.run(show(), text=True, capture_output=True, check=True, env=environment)
    assert ended.stdout.splitlines() == PLAIN
    assert "\x1b" not in ended.stdout


# --- a real run ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_shows_each_of_its_steps_and_ctrl_c_leaves_a_sane_terminal(tmp_path_factory, tmp_path: Path):
    write_config(tmp_path, launch={"processes": 1})
    # Ranks load their libraries as for a user: without torch's compiler, which tests leave out, loading ends too soon
    # for the status line to show it.
    environment = {"PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")), "DS_ACCELERATOR": "cpu"}
    environment["TORCHDYNAMO_DISABLE"] = "0"
    with Terminal(60, command("run", "tiny.yaml"), tmp_path, **environment) as terminal:
        terminal.wait_for(lambda: any(line.split()[0] == "0" for line in terminal.lines))
        terminal.wait_for(lambda: terminal.frames[-1].startswith("starting the launch for model 1"))
        terminal.press(b"\x03")
        assert terminal.end() == 130
    activity = ("starting Prefect", "starting the launch", "loading weights", "training model 0")
    for text in activity:
        assert any(frame.startswith(text) for frame in terminal.frames), text
    assert not terminal.screen.cursor.hidden
    assert terminal.lines[-2:] == ["interrupted: nothing that was committed is lost; the same co", "mmand continues"]
    assert not any("━" in line for line in terminal.lines)
    header = next(line for line in terminal.lines if line.startswith("model "))
    assert header == "model      accuracy [95 %] baseline samples  loss   time", "what fits into 60 columns"
