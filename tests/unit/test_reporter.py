# SPDX-License-Identifier: GPL-3.0-or-later
"""What is printed of a step's progress: news at once, never a flood, never a long silence, never the same twice in a row."""

from __future__ import annotations

import time

from ansible_collections.progressive.delivery.plugins.plugin_utils.reporter import LONGEST_SILENCE, Reporter


class Paper:
    """What was printed, with the times at which it was."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.lines: list[tuple[float, str]] = []

    def __call__(self, line: str) -> None:
        self.lines.append((time.monotonic() - self.began, line))

    @property
    def words(self) -> list[str]:
        """Return the lines without their times."""
        return [line.split(" s  ", 1)[1] for _at, line in self.lines]


def test_systems_that_end_silent_jobs_are_never_made_to_wait_longer() -> None:
    assert LONGEST_SILENCE <= 15


def test_news_is_printed_at_once_and_the_same_line_not_twice() -> None:
    paper = Paper()
    with Reporter(paper, silence=5, pause=0) as reporter:
        for line in ("a", "a", "b", "b", "a"):
            reporter.say(line)
    assert paper.words == ["a", "b", "a"]


def test_a_step_that_says_nothing_or_hangs_is_not_silent() -> None:
    paper = Paper()
    with Reporter(paper, silence=0.2, pause=0) as reporter:
        time.sleep(0.5)
        reporter.say("1 of 3")
        time.sleep(0.5)
    assert paper.words == ["still at work", "still at work", "1 of 3", "1 of 3", "1 of 3"]
    gaps = [later[0] - earlier[0] for earlier, later in zip(paper.lines, paper.lines[1:])]
    assert max(gaps) < 0.3


def test_lines_that_come_fast_are_thinned_out_and_the_last_one_is_kept() -> None:
    paper = Paper()
    with Reporter(paper, silence=5, pause=0.3) as reporter:
        for number in range(100):
            reporter.say(str(number))
            time.sleep(0.005)
    assert paper.words[0] == "0" and paper.words[-1] == "99" and 3 <= len(paper.words) <= 4


def test_a_line_that_had_to_wait_is_printed_without_another_word() -> None:
    paper = Paper()
    with Reporter(paper, silence=5, pause=0.2) as reporter:
        reporter.say("a")
        reporter.say("b")
        time.sleep(0.4)
        assert paper.words == ["a", "b"]


def test_what_is_not_news_waits_for_the_silence() -> None:
    paper = Paper()
    with Reporter(paper, silence=0.3, pause=0) as reporter:
        for number in range(10):
            reporter.say(f"{number} s, 3 ready", 3)
            time.sleep(0.05)
    # On a busy machine the ten take longer.
    longest = time.monotonic() - paper.began
    assert 2 <= len(paper.words) <= 1 + longest / 0.3 and paper.words[0] == "0 s, 3 ready"


def test_lines_stand_under_each_other() -> None:
    paper, now = Paper(), [0.0]
    reporter = Reporter(paper, pause=0, clock=lambda: now[0])
    for at, line in ((0.04, "a"), (12.34, "b"), (123.4, "c")):
        now[0] = at
        reporter.say(line)
    assert [line for _at, line in paper.lines] == ["    0.0 s  a", "   12.3 s  b", "  123.4 s  c"]
