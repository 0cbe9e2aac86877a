# SPDX-License-Identifier: GPL-3.0-or-later
"""The choice of a strategy: the chapter's answers, each way through the tree, and what no facts may lead to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.progressive.delivery.plugins.filter.recommend_strategy import FilterModule as Recommend
from ansible_collections.progressive.delivery.plugins.filter.strategy_table import FilterModule as Table
from ansible_collections.progressive.delivery.plugins.module_utils.errors import InvalidRequest
from ansible_collections.progressive.delivery.plugins.module_utils.plan.advice import COLUMNS, cells
from ansible_collections.progressive.delivery.plugins.module_utils.plan.strategies import (
    ROOT,
    STRATEGIES,
    TREE,
    Facts,
    hindrance,
    recommend,
)

COLLECTION = Path(__file__).resolve().parents[2]
GUIDE = COLLECTION / "docs" / "guides" / "choosing_a_strategy.md"
RWO = [{"name": "data", "access_modes": ["ReadWriteOnce"]}]
NO_ROUTES: dict[str, Any] = {"services": ["web"], "ingresses": [], "http_routes": [], "virtual_services": [], "ingress_routes": []}
GATEWAY = ["apps", "gateway.networking.k8s.io"]
FOUND: dict[str, Any] = {
    "namespace": "shop",
    "name": "web",
    "kind": "Deployment",
    "replicas": 3,
    "update_strategy": "RollingUpdate",
    "selector": {"app": "web", "version": "blue"},
    "readiness_probe": True,
    "requests": {"cpu": 0.01, "memory": 16777216},
    "capacity": {"pods": 100, "cpu": 1.5, "memory": 2**32, "nodes": 2, "quota": None},
    "claims": [],
    "autoscaler": None,
    "routes": NO_ROUTES,
    "api_groups": ["apps"],
    "unknown": [],
}


def room(pods: int, quota: int | None = None) -> dict[str, Any]:
    """Return the capacity for so many more pods."""
    return {**FOUND["capacity"], "pods": pods, "quota": None if quota is None else {"name": "small", "pods": quota}}


@pytest.mark.parametrize(
    ("said", "strategy"),
    [
        ({"downtime_ok": True}, "recreate"),
        ({"downtime_ok": False, "double_resources": False}, "rolling_update"),
        ({"downtime_ok": False, "double_resources": True, "instant_rollback": True}, "blue_green"),
        ({"downtime_ok": False, "double_resources": True, "instant_rollback": False}, "canary"),
        ({"purpose": "compare_variants"}, "ab_test"),
        ({"purpose": "rehearse"}, "shadow"),
        ({"risky": True}, "canary"),
        ({}, "rolling_update"),
    ],
)
def test_without_a_cluster_the_answer_is_the_textbook_one(said: dict[str, Any], strategy: str) -> None:
    answer = recommend(said)
    assert answer.strategy == strategy and answer.reasons


ANSWERS: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing said": ({}, "rolling_update", "Nobody has called the change risky."),
    "instant way back, with room": ({"instant_rollback": True}, "blue_green", "3 more pods would fit"),
    "instant way back, nodes full": (
        {"instant_rollback": True, "capacity": room(2)},
        "rolling_update",
        "that takes 3 more pods, and there is room for 2 on the nodes",
    ),
    "instant way back, quota full": (
        {"instant_rollback": True, "capacity": room(100, quota=1)},
        "rolling_update",
        "there is room for 1 in ResourceQuota small",
    ),
    "a budget does not make room": (
        {"double_resources": True, "instant_rollback": True, "capacity": room(0)},
        "rolling_update",
        "there is room for none on the nodes",
    ),
    "room, but no budget": ({"double_resources": False, "instant_rollback": True}, "rolling_update", "There is no budget"),
    "room is not a budget": ({"instant_rollback": False}, "rolling_update", "There is room for twice the resources"),
    "a budget, and nothing said of the risk": ({"double_resources": True}, "canary", "the budget lets few users meet it first"),
    "a budget, and no risk": ({"double_resources": True, "risky": False}, "rolling_update", "The change is not risky."),
    "instant way back, nothing to switch": (
        {"instant_rollback": True, "routes": {**NO_ROUTES, "services": []}},
        "rolling_update",
        "No Service selects its pods",
    ),
    "risky, and a small cluster": ({"risky": True, "capacity": room(1)}, "canary", "Few users can meet it first."),
    "risky, and a full cluster": ({"risky": True, "capacity": room(0)}, "rolling_update", "Not one more pod fits"),
    "risky, and nothing measures": ({"risky": True, "metrics": False}, "blue_green", "tested beside the old version"),
    "risky, nothing measures, no budget": (
        {"risky": True, "metrics": False, "double_resources": False},
        "rolling_update",
        "There is no budget",
    ),
    "risky, with Flagger": (
        {"risky": True, "metrics": True, "api_groups": [*GATEWAY, "flagger.app"], "routes": {**NO_ROUTES, "http_routes": ["web"]}},
        "flagger",
        "Flagger is installed",
    ),
    "risky, with Flagger and no router": ({"risky": True, "api_groups": ["flagger.app"]}, "canary", "No router here can split requests"),
    "a downtime is fine": ({"downtime_ok": True}, "recreate", "simplest strategy"),
    "a downtime is fine, the way back not": ({"downtime_ok": True, "instant_rollback": True}, "blue_green", "another downtime"),
    "a downtime is fine, but it is risky": ({"downtime_ok": True, "risky": True}, "canary", "with Recreate all users meet it at once"),
    "a volume for one": ({"claims": RWO, "instant_rollback": True}, "recreate", "PersistentVolumeClaim data is ReadWriteOnce"),
    "a volume for one pod": ({"claims": [{"name": "data", "access_modes": ["ReadWriteOncePod"]}]}, "recreate", "is ReadWriteOncePod"),
    "a volume for many": ({"claims": [{"name": "data", "access_modes": ["ReadWriteMany"]}]}, "rolling_update", "No volume of it forbids"),
    "a StatefulSet": ({"kind": "StatefulSet", "downtime_ok": True}, "rolling_update", "a partition holds the update"),
    "a DaemonSet": ({"kind": "daemonset", "instant_rollback": True}, "rolling_update", "node by node"),
    "two variants, and no router": ({"purpose": "compare_variants"}, "rolling_update", "No router here can tell requests apart"),
    "two variants, and a router": ({"purpose": "compare_variants", "api_groups": GATEWAY}, "ab_test", "Gateway API is installed"),
    "two variants, and a route": (
        {"purpose": "compare_variants", "routes": {**NO_ROUTES, "ingresses": [{"name": "web", "controller": "k8s.io/ingress-nginx"}]}},
        "ab_test",
        "Ingress web leads to it",
    ),
    "two variants of a StatefulSet": (
        {"purpose": "compare_variants", "kind": "StatefulSet", "api_groups": GATEWAY},
        "rolling_update",
        "would run on other data",
    ),
    "a rehearsal": (
        {"purpose": "rehearse", "api_groups": ["networking.istio.io"], "routes": {**NO_ROUTES, "virtual_services": ["web"]}},
        "shadow",
        "VirtualService web leads to it",
    ),
    "a rehearsal on ingress-nginx": (
        {"purpose": "rehearse", "routes": {**NO_ROUTES, "ingresses": [{"name": "web", "controller": "k8s.io/ingress-nginx"}]}},
        "rolling_update",
        "No router here can copy requests",
    ),
    "a rehearsal without room": ({"purpose": "rehearse", "api_groups": GATEWAY, "capacity": room(2)}, "rolling_update", "room for 2"),
}


@pytest.mark.parametrize(("given", "strategy", "reason"), ANSWERS.values(), ids=ANSWERS)
def test_the_answer_follows_from_what_is_said_and_found(given: dict[str, Any], strategy: str, reason: str) -> None:
    answer = recommend({**FOUND, **given})
    assert (answer.strategy, answer.title) == (strategy, STRATEGIES[strategy].title)
    assert any(reason in sentence for sentence in answer.reasons), answer.reasons
    assert len(answer.path) == len(answer.reasons)


MISSING: dict[str, tuple[dict[str, Any], str]] = {
    "canary without a router": (
        {"risky": True},
        "there is none here. Without one the canary goes by the ratio of replicas, in steps of 25",
    ),
    "canary with a router and no route": (
        {"risky": True, "api_groups": GATEWAY},
        "can split requests by weight, but no HTTPRoute",
    ),
    "canary with routers unknown": ({"risky": True, "api_groups": None}, "whether there is one is not known"),
    "Ingress of an unknown class": (
        {"risky": True, "routes": {**NO_ROUTES, "ingresses": [{"name": "web", "controller": None}]}},
        "whether there is one is not known",
    ),
    "canary and metrics": ({"risky": True}, "nobody has said whether something measures"),
    "a Canary": (
        {"risky": True, "metrics": True, "api_groups": [*GATEWAY, "flagger.app"], "routes": {**NO_ROUTES, "http_routes": ["web"]}},
        "A Canary that names the Deployment: Flagger releases by one.",
    ),
    "a wish for an instant way back": (
        {"instant_rollback": True, "capacity": room(1)},
        "For an instant way back: twice the resources",
    ),
    "a wish for a comparison": ({"purpose": "compare_variants"}, "To compare two variants: no router here can tell requests apart"),
    "a wish for a rehearsal": ({"purpose": "rehearse"}, "To rehearse without users: no router here can copy requests"),
    "a wish for few users first": ({"risky": True, "capacity": room(0)}, "For few users to meet it first: not one more pod fits"),
    "a wish for no downtime": ({"claims": RWO}, "For no downtime: a claim that is ReadWriteMany"),
    "a StatefulSet of one": ({"kind": "StatefulSet", "replicas": 1}, "For no downtime: a second replica."),
    "room for a rolling update": ({"capacity": room(0)}, "takes max_surge 0 and max_unavailable 1"),
    "room for the only pod": ({"replicas": 1, "capacity": room(0)}, "For no downtime: room for one more pod."),
    "room that is not known": ({"instant_rollback": True, "capacity": None}, "Room for 3 more pods: how much there is, is not known"),
    "requests": ({"requests": {"cpu": 0.0, "memory": 0}}, "that they fit is a guess"),
    "a readinessProbe": ({"readiness_probe": False}, "A readinessProbe"),
    "a second replica": ({"replicas": 1}, "the loss of its node is a downtime"),
    "replicas": ({"replicas": 0}, "it has none now"),
    "an autoscaler for two": (
        {"instant_rollback": True, "autoscaler": {"name": "web", "min": 2, "max": 10}},
        "web (2 to 10 pods) scales the first alone",
    ),
    "a claim that could not be read": ({"claims": [{"name": "data", "access_modes": None}]}, "PersistentVolumeClaim data may be mounted"),
    "the update strategy": ({"update_strategy": "Recreate"}, "set to RollingUpdate: it is Recreate now"),
    "the other update strategy": ({"downtime_ok": True}, "set to Recreate: it is RollingUpdate now"),
    "a color": ({"instant_rollback": True, "selector": {"app": "web"}}, "A label that tells the colors apart"),
    "a Service that is not known": ({"instant_rollback": True, "routes": None}, "A Service that selects its pods"),
    "rights": ({"unknown": ["nodes", "quotas"]}, "nodes, quotas could not be read"),
}


@pytest.mark.parametrize(("given", "sentence"), MISSING.values(), ids=MISSING)
def test_what_is_missing_is_said(given: dict[str, Any], sentence: str) -> None:
    assert any(sentence in need for need in recommend({**FOUND, **given}).needs), recommend({**FOUND, **given}).needs
    assert not any(sentence in need for need in recommend({**FOUND, "purpose": "release"}).needs)


def test_where_all_is_there_nothing_is_missing() -> None:
    assert recommend({**FOUND, "instant_rollback": True}).needs == ()


@pytest.mark.parametrize(
    ("given", "costs"),
    [
        ({}, {"downtime": "none", "way_back": "fast", "resources": 1.2, "more_pods": 1, "complexity": 2, "duration": "medium"}),
        ({"replicas": 10}, {"more_pods": 2}),
        ({"instant_rollback": True}, {"way_back": "instant", "resources": 2.0, "more_pods": 3, "duration": "short"}),
        ({"downtime_ok": True}, {"downtime": "yes", "way_back": "slow", "resources": 1.0, "more_pods": 0, "complexity": 1}),
        ({"risky": True}, {"more_pods": 1, "complexity": 4, "duration": "long"}),
        ({"replicas": None}, {"more_pods": None}),
        ({"kind": "StatefulSet"}, {"downtime": "none, with one pod less meanwhile", "resources": 1.0, "more_pods": 0}),
        ({"kind": "StatefulSet", "replicas": 1}, {"downtime": "yes, while its only pod is replaced"}),
        ({"kind": "DaemonSet"}, {"downtime": "on one node after the other", "more_pods": 0}),
        ({"replicas": 1, "capacity": room(0)}, {"downtime": "yes, while its only pod is replaced"}),
    ],
)
def test_what_it_costs_is_told_for_this_workload(given: dict[str, Any], costs: dict[str, Any]) -> None:
    found = recommend({**FOUND, **given}).costs
    assert {key: found[key] for key in costs} == costs


def test_every_other_strategy_has_why_not_and_the_possible_ones_come_first() -> None:
    answer = recommend({**FOUND, "instant_rollback": True})
    assert sorted([answer.strategy, *(entry["strategy"] for entry in answer.alternatives)]) == sorted(STRATEGIES)
    assert all(entry["why_not"].endswith(".") for entry in answer.alternatives)
    possible = [entry["possible"] for entry in answer.alternatives]
    assert possible == sorted(possible, reverse=True) and True in possible and False in possible


# -- every combination ------------------------------------------------------------------------------------------------

ROUTERS: dict[str, dict[str, Any]] = {
    "unknown": {"api_groups": None},
    "none": {"api_groups": ["apps"], "routes": NO_ROUTES},
    "all": {"api_groups": [*GATEWAY, "flagger.app"], "routes": {**NO_ROUTES, "http_routes": ["web"]}},
}


def combinations() -> Iterator[tuple[dict[str, Any], str]]:
    """Yield every combination of facts that the tree tells apart, and which routers it has."""
    axes: dict[str, list[Any]] = {
        "purpose": ["release", "compare_variants", "rehearse"],
        "downtime_ok": [None, True],
        "double_resources": [None, True, False],
        "instant_rollback": [None, True],
        "risky": [None, True, False],
        "metrics": [None, False],
        "kind": ["Deployment", "StatefulSet", "DaemonSet"],
        "capacity": [None, room(0), room(2), room(100)],
        "claims": [[], RWO],
    }
    for values in itertools.product(*axes.values()):
        for services in (None, [], ["web"]):
            for routers, found in ROUTERS.items():
                routes = {**found.get("routes", NO_ROUTES), "services": services}
                yield {**FOUND, **dict(zip(axes, values)), **found, "routes": routes if services is not None else None}, routers


def excluded(facts: dict[str, Any], routers: str) -> set[str]:
    """Return the strategies that these facts forbid, said again in plain words and not by the code under test."""
    out: set[str] = set()
    bound = facts["kind"] == "Deployment" and facts["claims"] == RWO
    pods = (facts["capacity"] or {}).get("pods")
    twice = facts["double_resources"] is not False and (pods is None or pods >= facts["replicas"])
    if facts["kind"] != "Deployment" or (not facts["downtime_ok"] and not bound):
        out.add("recreate")
    if bound:
        out.add("rolling_update")
    if facts["kind"] != "Deployment" or bound:
        out |= {"blue_green", "canary", "flagger", "ab_test", "shadow"}
    if not twice:
        out |= {"blue_green", "flagger", "shadow"}
    if pods == 0:
        out |= {"canary", "ab_test"}
    if facts["metrics"] is False:
        out |= {"canary", "flagger"}
    if facts["routes"] is not None and not facts["routes"]["services"]:
        out |= {"blue_green", "ab_test", "shadow"}
    if routers != "all":
        out.add("flagger")
    if routers == "none" and facts["routes"] is not None:
        out |= {"ab_test", "shadow"}
    if facts["purpose"] != "compare_variants":
        out.add("ab_test")
    if facts["purpose"] != "rehearse":
        out.add("shadow")
    return out


def test_every_combination_has_an_answer_that_its_facts_allow_and_every_branch_is_walked() -> None:
    walked: set[tuple[str, str]] = set()
    reached: set[str] = set()
    questions = {question.ask: name for name, question in TREE.items()}
    for facts, routers in combinations():
        answer = recommend(facts)
        out = excluded(facts, routers)
        assert answer.strategy not in out, (facts, answer)
        assert answer.reasons and all(sentence.endswith(".") for sentence in answer.reasons)
        assert hindrance(answer.strategy, Facts.of(facts)) is None
        # What is wished for and can be had is given.
        if facts["purpose"] == "compare_variants" and "ab_test" not in out:
            assert answer.strategy == "ab_test"
        elif facts["purpose"] == "rehearse" and "shadow" not in out:
            assert answer.strategy == "shadow"
        elif facts["instant_rollback"] and "blue_green" not in out:
            assert answer.strategy == "blue_green", (facts, answer)
        elif facts["risky"] and "canary" not in out:
            assert answer.strategy in ("canary", "flagger")
        walked |= {(questions[step["question"]], step["answer"]) for step in answer.path}
        reached.add(answer.strategy)
    assert reached == set(STRATEGIES)
    assert walked == {(name, answer) for name, question in TREE.items() for answer in question.then}


def test_the_tree_leads_to_questions_and_strategies_that_there_are() -> None:
    targets = {target for question in TREE.values() for target in question.then.values()}
    assert targets - set(TREE) == set(STRATEGIES)
    assert targets & set(TREE) == set(TREE) - {ROOT}
    assert not set(TREE) & set(STRATEGIES)


def test_a_strategy_names_the_playbook_that_there_is_and_no_other() -> None:
    others = {"flagger": "flagger_release"}
    for name, strategy in STRATEGIES.items():
        playbook = others.get(name, name)
        there = (COLLECTION / "playbooks" / f"{playbook}.yml").exists()
        wanted = f"progressive.delivery.{playbook}" if there else None
        assert strategy.playbook == wanted, f"write playbook={wanted!r} for {name} in plan/strategies.py"


# -- the doors: the filters, and the guide ----------------------------------------------------------------------------

REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no mapping": ("web", {}, "the facts are a mapping, got str"),
    "unknown fact": ({"replica": 3}, {}, 'there is no fact "replica"; facts are downtime_ok'),
    "the whole result": ({"facts": {}, "changed": False}, {}, "pass its facts"),
    "unknown option": ({}, {"risk": True}, 'has no option "risk"; it has: downtime_ok'),
    "no boolean": ({}, {"risky": "perhaps"}, 'risky must be true, false or nothing, got "perhaps"'),
    "no purpose": ({}, {"purpose": "fun"}, "purpose must be one of release, compare_variants, rehearse"),
    "no kind": ({"kind": "Job"}, {}, "kind must be one of Deployment, StatefulSet, DaemonSet"),
    "no replicas": ({"replicas": -1}, {}, 'replicas must be a whole number from 0, got "-1"'),
    "no capacity": ({"capacity": 5}, {}, "capacity must be a mapping as strategy_info returns it"),
    "no pods": ({"capacity": {"pods": "many"}}, {}, 'capacity.pods must be a whole number from 0, got "many"'),
}


@pytest.mark.parametrize(("facts", "said", "sentence"), REFUSED.values(), ids=REFUSED)
def test_bad_facts_get_one_sentence(facts: Any, said: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        Recommend().filters()["recommend_strategy"](facts, **said)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("yes", [True, "true", "yes", "True", 1])
def test_what_a_survey_answers_counts(yes: Any) -> None:
    choose = Recommend().filters()["recommend_strategy"]
    assert choose(FOUND, instant_rollback=yes)["strategy"] == "blue_green"
    assert choose({**FOUND, "instant_rollback": yes, "risky": ""}, metrics="")["strategy"] == "blue_green"
    assert choose({**FOUND, "instant_rollback": yes}, instant_rollback="no")["strategy"] == "rolling_update"


def test_a_recommendation_is_a_text_with_all_its_parts() -> None:
    choose, text = Recommend().filters()["recommend_strategy"], Table().filters()["strategy_table"]
    answer = choose(FOUND, risky=True)
    lines = text(answer).splitlines()
    assert lines[0] == "Canary for Deployment shop/web"
    for head in ("Why", "What it costs", "What is missing here", "Why not another one", "All strategies"):
        assert head in lines
    said = " ".join(" ".join(lines).split())
    for sentence in [*answer["reasons"], *answer["needs"], *(entry["why_not"] for entry in answer["alternatives"])]:
        assert sentence in said
    assert "  resources   1.3x, 1 more pod meanwhile" in lines and "  complexity  4 of 5" in lines
    assert max(map(len, text(answer, compare=False, width=80).splitlines())) <= 80
    assert "All strategies" not in text(answer, compare=False)
    assert "ansible-playbook progressive.delivery.blue_green" in text(choose(FOUND, instant_rollback=True))
    assert "  - nothing" in text(choose(FOUND, instant_rollback=True)).splitlines()


def test_the_comparison_is_aligned_and_has_every_strategy() -> None:
    lines = Table().filters()["strategy_table"]("all").splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [strategy.title for strategy in STRATEGIES.values()]
    for head, cell in (("Downtime", "none"), ("Way back", "instant"), ("Resources", "2x"), ("Complexity", "3 of 5")):
        assert lines[3][lines[0].index(head) :].startswith(cell), lines[3]


@pytest.mark.parametrize("given", [{}, None, "some", {"strategy": "canary"}])
def test_what_is_no_recommendation_is_refused(given: Any) -> None:
    with pytest.raises(AnsibleFilterError, match="this is no recommendation"):
        Table().filters()["strategy_table"](given)


def rows(text: str, head: str) -> list[list[str]]:
    """Return the cells of the Markdown table whose header begins with a word."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {head} |"))
    table = itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_guide_has_the_table_and_the_tree_of_the_data() -> None:
    text = GUIDE.read_text()
    table = rows(text, "Strategy")
    assert table[0] == [head for head, _key in COLUMNS] + ["Suits"]
    assert table[2:] == [[*cells(strategy), strategy.suits] for strategy in STRATEGIES.values()]
    tree = rows(text, "No.")
    numbers = {name: str(number) for number, name in enumerate(TREE, 1)}
    assert [row[:2] for row in tree[2:]] == [[numbers[name], question.ask] for name, question in TREE.items()]
    for row, question in zip(tree[2:], TREE.values()):
        wanted = [f"{answer}: {numbers.get(target) or STRATEGIES[target].title}" for answer, target in question.then.items()]
        assert row[2] == ", ".join(wanted)


def test_plan_refuses_as_the_filter_does() -> None:
    with pytest.raises(InvalidRequest, match="there is no fact"):
        recommend({"nope": 1})
