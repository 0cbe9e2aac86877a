# SPDX-License-Identifier: GPL-3.0-or-later
"""The tests of a share on streams of answers whose share is known: how seldom they are wrong, and how soon they decide."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from ansible_collections.progressive.delivery.plugins.module_utils.errors import InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.plan.measuring import (
    FEWEST,
    RISK,
    RISK_AT_END,
    Cusum,
    ShareTest,
    Window,
    expected_answers,
    is_rare,
    share_test,
)


def drawn(percent: float, seed: int) -> Iterator[bool]:
    """Yield answers as Envoy does: each is drawn."""
    source = random.Random(seed)
    while True:
        yield source.random() < percent / 100


def in_turn(percent: float, _seed: int = 0) -> Iterator[bool]:
    """Yield answers as Traefik does: in turn, as evenly as the weights allow."""
    due = 0.0
    while True:
        due += percent / 100
        canary = due >= 1 - 1e-9
        due -= canary
        yield canary


STREAMS = {"drawn": drawn, "in turn": in_turn}


def answers_until(test: ShareTest, stream: Iterator[bool], most: int) -> int | None:
    """Return how many answers it took to decide, or None where it did not."""
    for number in range(most):
        if test.add(next(stream)):
            return number + 1
    return None


# (before, weight): how many answers it takes in the mean, from the change on. At 500 a second, 100 answers take 0.2 s.
DELAYS = {
    (0, 5): 95,
    (5, 20): 100,
    (20, 50): 80,
    (50, 100): 60,
    (50, 0): 60,
    (100, 0): 60,
    (20, 0): 80,
    (5, 0): 280,
    (99, 100): 1050,
    (20, 5): 160,
}


@pytest.mark.parametrize(("before", "weight"), DELAYS, ids=lambda value: str(value))
def test_a_share_that_did_not_change_is_seldom_taken_for_the_new_one(before: float, weight: float) -> None:
    wrong, runs, most = 0, 1000, 400
    for seed in range(runs):
        wrong += answers_until(share_test(weight, before), drawn(before, seed), most) is not None
    risk = RISK_AT_END if weight in (0, 100) else RISK
    # Three standard deviations over what is allowed, in as many runs as a test can do.
    assert wrong <= runs * risk + 3 * (runs * risk) ** 0.5


def test_the_risk_holds_for_however_long_it_takes() -> None:
    wrong = sum(answers_until(share_test(20, 5), drawn(5, seed), 20_000) is not None for seed in range(100))
    assert wrong <= 100 * RISK + 3 * (100 * RISK) ** 0.5


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize(("before", "weight"), DELAYS, ids=lambda value: str(value))
def test_a_share_that_changes_is_seen_soon(before: float, weight: float, name: str) -> None:
    taken = []
    for seed in range(60):
        test, stream = share_test(weight, before), STREAMS[name](before, seed)
        if answers_until(test, stream, 100 + seed) is not None:
            continue
        taken.append(answers_until(test, STREAMS[name](weight, 1000 + seed), 20_000) or 20_000)
    assert len(taken) >= 58
    assert sum(taken) / len(taken) <= DELAYS[before, weight]


@pytest.mark.parametrize("weight", [0, 100])
@pytest.mark.parametrize("reset", [False, True], ids=["the other side", "nobody"])
def test_at_the_ends_one_other_answer_begins_the_count_anew(weight: float, reset: bool) -> None:
    test, old = share_test(weight, abs(weight - 5)), 0.05
    side = weight == 100
    needed = answers_until(share_test(weight, abs(weight - 5)), iter([side] * 500), 500) or 0
    # The first attempt has half of the risk.
    assert (1 - old) ** (needed - 1) <= RISK_AT_END / 2 * 1.0001 < (1 - old) ** (needed - 2)
    for _number in range(needed - 1):
        assert not test.add(side)
    if reset:
        test.reset()
    else:
        assert not test.add(not side)
    assert (answers_until(test, iter([side] * 500), 500) or 0) >= needed
    assert test.share == weight


def test_at_the_ends_nothing_is_decided_by_a_few_answers() -> None:
    assert answers_until(share_test(0, 100), iter([False] * 100), 100) == FEWEST
    assert answers_until(share_test(100, 0), iter([True] * 100), 100) == FEWEST


def test_without_an_old_share_the_ends_are_told_from_the_smallest_one() -> None:
    needed = answers_until(share_test(0), iter([False] * 2000), 2000) or 0
    assert 0.99**needed <= RISK_AT_END / 2 and needed == answers_until(share_test(0, 1), iter([False] * 2000), 2000)
    assert needed == answers_until(share_test(0, 0), iter([False] * 2000), 2000)


@pytest.mark.parametrize(("before", "weight", "third"), [(5, 20, 80), (0, 5, 60), (50, 20, 1), (20, 50, 99)])
def test_a_third_share_is_not_taken_for_the_new_one(before: float, weight: float, third: float) -> None:
    settled = sum(answers_until(share_test(weight, before), drawn(third, seed), 1000) is not None for seed in range(100))
    assert settled <= 5


def test_a_share_is_told_from_enough_answers_to_be_one() -> None:
    for seed in range(50):
        test = share_test(5, 0)
        assert (answers_until(test, drawn(5, seed), 5000) or 0) >= FEWEST
        assert 0 < test.share <= 20


def test_a_stray_answer_of_the_canary_is_not_its_share() -> None:
    test = share_test(5, 0)
    assert answers_until(test, iter([False] * 50 + [True] + [False] * 500), 551) is None


def test_while_one_of_two_gateways_lags_behind_the_end_is_not_reached() -> None:
    # One does 0 already, the other still 50 percent (or 20): a quarter (or a tenth) of the answers is the canary's.
    assert sum(answers_until(share_test(0, 50), drawn(25, seed), 500) is not None for seed in range(500)) == 0
    assert sum(answers_until(share_test(0, 20), drawn(10, seed), 100) is not None for seed in range(500)) <= 500 * RISK_AT_END**0.5


@pytest.mark.parametrize("weight", [1, 5, 20, 33, 50, 80, 99])
def test_without_an_old_share_the_newest_answers_decide(weight: float) -> None:
    test = share_test(weight)
    assert isinstance(test, Window) and test.tolerance <= 5
    soon = [answers_until(share_test(weight), drawn(weight, seed), 3 * test.size) for seed in range(100)]
    assert None not in soon
    assert sum(number == test.size for number in soon) >= 95
    # Several times as far away as what is allowed is not near.
    away = weight + (-1 if weight >= 50 else 1) * 4 * test.tolerance
    near = [answers_until(share_test(weight), drawn(away, seed), 2 * test.size) is not None for seed in range(100)]
    assert sum(near) <= 3


def test_shares_that_are_close_are_compared_with_the_newest_answers() -> None:
    assert isinstance(share_test(22, 20), Window) and isinstance(share_test(20, 20), Window)
    assert isinstance(share_test(25, 20), Cusum) and isinstance(share_test(20, 5), Cusum)
    # The ends are exact, however close.
    assert isinstance(share_test(0, 1), Cusum) and isinstance(share_test(100), Cusum)


def test_how_many_answers_it_takes_is_known_beforehand_about() -> None:
    for (before, weight), most in DELAYS.items():
        assert 0.5 * most <= expected_answers(weight, before) <= 1.1 * most


def test_what_is_rare() -> None:
    assert is_rare(10, 10, 0.05, True) and not is_rare(1, 10, 0.05, True)
    assert is_rare(0, 200, 0.05, False) and not is_rare(8, 200, 0.05, False)
    assert not is_rare(5, 5, 1.0, True) and not is_rare(0, 0, 0.5, True)


@pytest.mark.parametrize(("weight", "before"), [(101, None), (-1, 5), (float("nan"), 5), (20, 120)])
def test_a_weight_that_is_none_is_refused(weight: float, before: float | None) -> None:
    with pytest.raises(InvalidRequest, match="must be between 0 and 100 percent"):
        share_test(weight, before)
