# SPDX-License-Identifier: GPL-3.0-or-later
"""Which strategy suits a release: the strategies as a table, the questions as a tree, and the walk that gives the reasons.

A strategy gets its playbook by one word in ``STRATEGIES``. A router is one line in ``ROUTERS``. What the cluster cannot
do is decided by ``hindrance`` alone: the tree asks it, and so do the alternatives and the list of what is missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..errors import InvalidRequest
from ..model import WORKLOAD_KINDS, parse_kind

PURPOSES = ("release", "compare_variants", "rehearse")
SHARED_MODES = ("ReadWriteMany", "ReadOnlyMany")
NGINX = "k8s.io/ingress-nginx"
COLOR_LABEL = "version"


@dataclass(frozen=True)
class Strategy:
    """A strategy and what it costs. ``resources`` is a factor of what the workload takes; ``complexity`` goes from 1 to 5."""

    name: str
    title: str
    downtime: str
    way_back: str
    resources: float
    complexity: int
    duration: str
    testing: str
    tools: str
    suits: str
    playbook: str


STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (
        Strategy(
            "recreate",
            "Recreate",
            downtime="yes",
            way_back="slow",
            resources=1.0,
            complexity=1,
            duration="short",
            testing="none",
            tools="nothing",
            suits="development, versions that cannot run side by side",
            playbook="progressive.delivery.recreate",
        ),
        Strategy(
            "rolling_update",
            "Rolling Update",
            downtime="none",
            way_back="fast",
            resources=1.2,
            complexity=2,
            duration="medium",
            testing="basic",
            tools="nothing",
            suits="production, as a rule",
            playbook="progressive.delivery.rolling_update",
        ),
        Strategy(
            "blue_green",
            "Blue-Green",
            downtime="none",
            way_back="instant",
            resources=2.0,
            complexity=3,
            duration="short",
            testing="complete",
            tools="a Service",
            suits="critical applications",
            playbook="progressive.delivery.blue_green",
        ),
        Strategy(
            "canary",
            "Canary",
            downtime="none",
            way_back="fast",
            resources=1.3,
            complexity=4,
            duration="long",
            testing="step by step",
            tools="metrics",
            suits="risky changes",
            playbook="progressive.delivery.canary",
        ),
        Strategy(
            "flagger",
            "Canary by Flagger",
            downtime="none",
            way_back="automatic",
            resources=2.0,
            complexity=4,
            duration="long",
            testing="step by step",
            tools="Flagger, metrics, a router",
            suits="risky changes, often",
            playbook="progressive.delivery.flagger_release",
        ),
        Strategy(
            "ab_test",
            "A/B Test",
            downtime="none",
            way_back="fast",
            resources=1.5,
            complexity=4,
            duration="open",
            testing="by metrics",
            tools="a router (header, cookie)",
            suits="which of two variants is better",
            playbook="progressive.delivery.ab_test",
        ),
        Strategy(
            "shadow",
            "Shadow",
            downtime="none",
            way_back="not needed",
            resources=2.0,
            complexity=5,
            duration="open",
            testing="copied requests",
            tools="a router (mirror)",
            suits="a rehearsal that no user sees",
            playbook="progressive.delivery.shadow",
        ),
    )
}


@dataclass(frozen=True)
class Router:
    """What splits, tells apart or copies requests; ``routes`` is the fact that lists its routes to the workload."""

    name: str
    title: str
    kind: str
    group: str
    routes: str
    abilities: tuple[str, ...]


ROUTERS: tuple[Router, ...] = (
    Router("gateway_api", "Gateway API", "HTTPRoute", "gateway.networking.k8s.io", "http_routes", ("weight", "match", "mirror")),
    Router("istio", "Istio", "VirtualService", "networking.istio.io", "virtual_services", ("weight", "match", "mirror")),
    Router("traefik", "Traefik", "IngressRoute", "traefik.io", "ingress_routes", ("weight", "match", "mirror")),
    Router("ingress_nginx", "ingress-nginx", "Ingress", "", "ingresses", ("weight", "match")),
)
ABILITIES = {
    "weight": "split requests by weight",
    "match": "tell requests apart by header or cookie",
    "mirror": "copy requests",
}


@dataclass(frozen=True)
class Facts:
    """What somebody said about the release, and what was found on the cluster. None is: not said, or not known."""

    # Said.
    downtime_ok: bool | None = None
    double_resources: bool | None = None
    instant_rollback: bool | None = None
    purpose: str = "release"
    risky: bool | None = None
    metrics: bool | None = None
    # Found.
    namespace: str = ""
    name: str = ""
    kind: str | None = None
    replicas: int | None = None
    update_strategy: str | None = None
    selector: Mapping[str, str] | None = None
    readiness_probe: bool | None = None
    requests: Mapping[str, Any] | None = None
    capacity: Mapping[str, Any] | None = None
    claims: Sequence[Mapping[str, Any]] | None = None
    autoscaler: Mapping[str, Any] | None = None
    routes: Mapping[str, Any] | None = None
    api_groups: Sequence[str] | None = None
    unknown: Sequence[str] = ()

    @classmethod
    def of(cls, given: Any) -> Facts:
        """Return the facts of a mapping; raise InvalidRequest for one that cannot be."""
        if not isinstance(given, Mapping):
            raise InvalidRequest(f"the facts are a mapping, got {type(given).__name__}; strategy_info returns them as facts")
        known = [entry.name for entry in fields(cls)]
        for key in given:
            if key not in known:
                hint = "; of what strategy_info returned, pass its facts" if "facts" in given else ""
                raise InvalidRequest(f'there is no fact "{key}"; facts are {", ".join(known)}{hint}')
        facts = cls(**{key: value for key, value in given.items() if value is not None})
        for key in SAID_BOOLEANS:
            if not isinstance(getattr(facts, key), (bool, type(None))):
                raise InvalidRequest(f'{key} must be true, false or nothing, got "{getattr(facts, key)}"')
        if facts.purpose not in PURPOSES:
            raise InvalidRequest(f'purpose must be one of {", ".join(PURPOSES)}, got "{facts.purpose}"')
        if facts.kind is not None:
            parse_kind(str(facts.kind), WORKLOAD_KINDS)
        for key in ("selector", "requests", "capacity", "autoscaler", "routes"):
            if not isinstance(getattr(facts, key), (Mapping, type(None))):
                raise InvalidRequest(f'{key} must be a mapping as strategy_info returns it, got "{getattr(facts, key)}"')
        for key, number in (("replicas", facts.replicas), ("capacity.pods", (facts.capacity or {}).get("pods"))):
            if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
                raise InvalidRequest(f'{key} must be a whole number from 0, got "{number}"')
        return facts

    @property
    def pods(self) -> int:
        """Return how many pods it has; one where that is not known."""
        return 1 if self.replicas is None else self.replicas

    @property
    def target(self) -> str:
        """Return the workload as a sentence names it, or an empty string."""
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.workload} {where}" if self.name else ""

    @property
    def workload(self) -> str:
        """Return its kind as Kubernetes spells it; a Deployment where nobody says."""
        return parse_kind(str(self.kind), WORKLOAD_KINDS) if self.kind else "Deployment"

    @property
    def room(self) -> int | None:
        """Return how many more of its pods fit, by nodes and quotas; None where neither is known."""
        capacity = self.capacity or {}
        quota = (capacity.get("quota") or {}).get("pods")
        limits = [number for number in (capacity.get("pods"), quota) if number is not None]
        return min(limits, default=None)

    @property
    def services(self) -> Sequence[str] | None:
        """Return the Services that select its pods; None where that is not known."""
        return (self.routes or {}).get("services")


SAID_BOOLEANS = ("downtime_ok", "double_resources", "instant_rollback", "risky", "metrics")
SAID = (*SAID_BOOLEANS, "purpose")


@dataclass(frozen=True)
class Recommendation:
    """The answer: the strategy, why, what it costs, what is missing for it here, and why no other."""

    strategy: str
    title: str
    reasons: Sequence[str]
    costs: Mapping[str, Any]
    needs: Sequence[str]
    alternatives: Sequence[Mapping[str, Any]]
    playbook: str
    path: Sequence[Mapping[str, str]] = ()
    target: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as the filter gives it."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


# -- what the cluster cannot do ---------------------------------------------------------------------------------------


def hindrance(name: str, facts: Facts) -> str | None:
    """Return why the strategy cannot be followed here, as a sentence; None where nothing is known against it."""
    checks: Mapping[str, tuple[Callable[[Facts], str | None], ...]] = {
        "recreate": (_no_recreate,),
        "rolling_update": (_one_writer,),
        "blue_green": (_no_twin, _one_writer, _no_service, _no_double),
        "canary": (_no_twin, _one_writer, _no_pod_more, _no_metrics),
        "flagger": (_no_flagger, _no_twin, _one_writer, _no_double, _no_metrics, _without("weight")),
        "ab_test": (_no_twin, _one_writer, _no_service, _no_pod_more, _without("match")),
        "shadow": (_no_twin, _one_writer, _no_service, _no_double, _without("mirror")),
    }
    return next((said for check in checks[name] for said in [check(facts)] if said), None)


def _no_recreate(facts: Facts) -> str | None:
    """Return why the kind has no Recreate."""
    kind = facts.workload
    return None if kind == "Deployment" else f"A {kind} has no Recreate: it replaces its pods in place, one after the other."


def _no_twin(facts: Facts) -> str | None:
    """Return why there can be no second workload beside this one."""
    if facts.workload == "StatefulSet":
        return "A StatefulSet has names and volumes of its own: a second one beside it would run on other data."
    if facts.workload == "DaemonSet":
        return "A DaemonSet has one pod on each node: a second one beside it would meet it on every node."
    return None


def _one_writer(facts: Facts) -> str | None:
    """Return why a second version may not run at the same time: a volume that one node, or one pod, may mount."""
    if facts.workload != "Deployment":
        return None
    for claim in facts.claims or ():
        modes = claim.get("access_modes")
        if modes and not set(modes) & set(SHARED_MODES):
            return (
                f"PersistentVolumeClaim {claim.get('name')} is {' and '.join(modes)}: a pod on another node could not mount it, and one on"
                " the same node would write beside the old version."
            )
    return None


def _no_service(facts: Facts) -> str | None:
    """Return that nothing sends it traffic that could be moved."""
    return "No Service selects its pods: there is no traffic that could be moved to another version." if facts.services == [] else None


def _no_double(facts: Facts) -> str | None:
    """Return why the workload cannot run twice at the same time."""
    if facts.double_resources is False:
        return "There is no budget for twice the resources."
    if facts.room is not None and facts.room < facts.pods:
        return f"Twice the resources do not fit: that takes {_more_pods(facts.pods)}, and there is room for {_room(facts)}."
    return None


def _no_pod_more(facts: Facts) -> str | None:
    """Return that not even one more pod fits."""
    return f"Not one more pod fits: there is room for {_room(facts)}." if facts.room == 0 else None


def _no_metrics(facts: Facts) -> str | None:
    """Return that nobody would see how the new version does."""
    return "Nothing measures how the new version does, so nobody could judge its share of the traffic." if facts.metrics is False else None


def _no_flagger(facts: Facts) -> str | None:
    """Return that Flagger is not there, or not known to be."""
    if facts.api_groups is None:
        return "Whether Flagger is installed is not known."
    return None if "flagger.app" in facts.api_groups else "Flagger is not installed: there is no API group flagger.app."


def _without(ability: str) -> Callable[[Facts], str | None]:
    """Return the check that some router here has the ability."""

    def check(facts: Facts) -> str | None:
        """Return that no router here has the ability."""
        found = routers(facts, ability)
        if found.leading or found.installed or not found.known:
            return None
        groups = ", ".join(router.group for router in ROUTERS if ability in router.abilities and router.group)
        nginx = " and no Ingress of ingress-nginx" if ability in ROUTERS[-1].abilities else ""
        return f"No router here can {ABILITIES[ability]}: there is no API group of one ({groups}){nginx} that leads to it."

    return check


@dataclass(frozen=True)
class Found:
    """The routers with an ability: those whose routes lead to the workload, those that are installed, and if that is all."""

    leading: Sequence[tuple[Router, str]]
    installed: Sequence[Router]
    known: bool


def routers(facts: Facts, ability: str) -> Found:
    """Return which routers could do it for this workload."""
    routes, groups = facts.routes or {}, facts.api_groups
    leading: list[tuple[Router, str]] = []
    known = groups is not None and facts.routes is not None
    for router in ROUTERS:
        found = routes.get(router.routes)
        if router.name == "ingress_nginx":
            known = known and found is not None and all(entry.get("controller") for entry in found)
            names = [entry["name"] for entry in found or () if entry.get("controller") == NGINX]
        else:
            names = list(found or ())
        if names and ability in router.abilities:
            leading.append((router, names[0]))
    there = {router for router, _name in leading}
    installed = [entry for entry in ROUTERS if entry.group in (groups or ()) and ability in entry.abilities and entry not in there]
    return Found(leading, installed, known)


# -- the tree ---------------------------------------------------------------------------------------------------------

Answer = tuple[str, str]


@dataclass(frozen=True)
class Question:
    """A question of the tree: ``answer`` gives a word and the reason; ``then`` leads on to a question or to a strategy."""

    ask: str
    answer: Callable[[Facts], Answer]
    then: Mapping[str, str] = field(default_factory=dict)


def _purpose(facts: Facts) -> Answer:
    """Answer what the second version is for."""
    said = {
        "release": "It is a release: the new version shall take the place of the old one.",
        "compare_variants": "Two variants shall be compared by what users do with them.",
        "rehearse": "The new version shall be tried with real requests before a user meets it.",
    }
    return facts.purpose, said[facts.purpose]


def _can_compare(facts: Facts) -> Answer:
    """Answer whether an A/B test is possible here."""
    against = hindrance("ab_test", facts)
    return ("no", against) if against else ("yes", _by_router(facts, "match", "Requests can be told apart by header or cookie"))


def _can_rehearse(facts: Facts) -> Answer:
    """Answer whether requests can be copied here."""
    against = hindrance("shadow", facts)
    return ("no", against) if against else ("yes", _by_router(facts, "mirror", "Requests can be copied to the new version"))


def _kind(facts: Facts) -> Answer:
    """Answer what kind of workload it is."""
    said = {
        "Deployment": "It is a Deployment: a second one can run beside it.",
        "StatefulSet": "It is a StatefulSet: its pods keep their names and volumes, so they are replaced one by one; a partition holds"
        " the update at the last ones for as long as they are looked at.",
        "DaemonSet": "It is a DaemonSet: its pods are replaced node by node.",
    }
    return facts.workload, said[facts.workload] if facts.kind else "Nobody has said what it is: it is taken for a Deployment."


def _volume(facts: Facts) -> Answer:
    """Answer whether a volume forbids a second pod."""
    against = _one_writer(facts)
    if against:
        return "yes", f"{against} The old pods have to be gone first."
    return "no", "Nothing is known of its volumes." if facts.claims is None else "No volume of it forbids two versions at once."


def _downtime(facts: Facts) -> Answer:
    """Answer whether a downtime is acceptable."""
    if facts.downtime_ok:
        return "yes", "A downtime is acceptable."
    said = "A downtime is not acceptable." if facts.downtime_ok is False else "Nobody has said that a downtime is acceptable."
    return "no", said


def _more(facts: Facts) -> Answer:
    """Answer whether something is asked for that Recreate cannot give."""
    if facts.instant_rollback:
        return "yes", "But an instant way back is asked for, and that of Recreate is another downtime."
    if facts.risky:
        return "yes", "But the change is risky, and with Recreate all users meet it at once."
    return "no", "Nothing is asked for that the simplest strategy could not give."


def _double(facts: Facts) -> Answer:
    """Answer whether there are budget and room for twice the resources."""
    against = _no_double(facts)
    if against:
        return "no", against
    budget = "There is a budget for twice the resources" if facts.double_resources else ""
    if facts.room is None:
        return "unknown", f"{budget}; whether they fit is not known." if budget else "Whether twice the resources fit is not known."
    room = f"{_more_pods(facts.pods)} would fit"
    return "yes", f"{budget}, and {room}." if budget else f"There is room for twice the resources: {room}."


def _instant(facts: Facts) -> Answer:
    """Answer whether the way back must be instant."""
    if facts.instant_rollback:
        return "yes", "The way back must be instant."
    return "no", "An instant way back is not asked for."


def _switch(facts: Facts) -> Answer:
    """Answer whether there is traffic that can be switched."""
    against = _no_service(facts)
    if against:
        return "no", against
    if facts.services is None:
        return "yes", "Which Services select its pods is not known; one of them is what is switched."
    return "yes", f"{_services(facts)} can be switched to the new version, and back, in a moment."


def _risky(facts: Facts) -> Answer:
    """Answer whether the change is risky; a budget that somebody gave and that buys no instant way back is for that."""
    if facts.risky is not None:
        return ("yes", "The change is risky.") if facts.risky else ("no", "The change is not risky.")
    if facts.double_resources and not facts.instant_rollback and not _no_double(facts):
        return "yes", "Nobody has said that the change is safe, and the budget lets few users meet it first."
    return "no", "Nobody has called the change risky."


def _measured(facts: Facts) -> Answer:
    """Answer whether a canary can be made and judged."""
    against = hindrance("canary", facts)
    if against:
        return "no", against
    return "yes", "Few users meet it first, and metrics tell how it does." if facts.metrics else "Few users can meet it first."


def _tested(facts: Facts) -> Answer:
    """Answer whether the new version can be tested beside the old one instead."""
    against = hindrance("blue_green", facts)
    if against:
        return "no", against
    return "yes", "It can be tested beside the old version before it gets any traffic, and taken back in a moment."


def _flagger(facts: Facts) -> Answer:
    """Answer whether Flagger can do the canary."""
    against = hindrance("flagger", facts)
    return ("no", against) if against else ("yes", "Flagger is installed and takes the steps by itself.")


ROOT = "purpose"
TREE: dict[str, Question] = {
    "purpose": Question("What is it for?", _purpose, {"release": "kind", "compare_variants": "compare", "rehearse": "rehearse"}),
    "compare": Question("Can two variants be compared here?", _can_compare, {"yes": "ab_test", "no": "kind"}),
    "rehearse": Question("Can requests be copied here?", _can_rehearse, {"yes": "shadow", "no": "kind"}),
    "kind": Question(
        "What kind of workload is it?",
        _kind,
        {"Deployment": "volume", "StatefulSet": "rolling_update", "DaemonSet": "rolling_update"},
    ),
    "volume": Question("Does a volume forbid two versions at once?", _volume, {"yes": "recreate", "no": "downtime"}),
    "downtime": Question("Is a downtime acceptable?", _downtime, {"yes": "more", "no": "double"}),
    "more": Question("Is more asked for than Recreate can give?", _more, {"yes": "double", "no": "recreate"}),
    "double": Question(
        "Are there budget and room for twice the resources?",
        _double,
        {"yes": "instant", "unknown": "instant", "no": "risky"},
    ),
    "instant": Question("Must the way back be instant?", _instant, {"yes": "switch", "no": "risky"}),
    "switch": Question("Is there traffic that can be switched?", _switch, {"yes": "blue_green", "no": "risky"}),
    "risky": Question("Is the change risky?", _risky, {"yes": "measured", "no": "rolling_update"}),
    "measured": Question("Can few users meet it first, and can it be judged?", _measured, {"yes": "flagger_here", "no": "tested"}),
    "flagger_here": Question("Is Flagger there?", _flagger, {"yes": "flagger", "no": "canary"}),
    "tested": Question("Can it be tested beside the old version?", _tested, {"yes": "blue_green", "no": "rolling_update"}),
}


def recommend(given: Any) -> Recommendation:
    """Return the strategy that suits the facts, with the reasons in the order of the questions."""
    facts = Facts.of(given)
    place, path, reasons = ROOT, [], []
    while place in TREE:
        question = TREE[place]
        answer, reason = question.answer(facts)
        path.append({"question": question.ask, "answer": answer})
        reasons.append(reason)
        place = question.then[answer]
    chosen = STRATEGIES[place]
    return Recommendation(
        strategy=chosen.name,
        title=chosen.title,
        reasons=tuple(reasons),
        costs=costs(chosen, facts),
        needs=tuple(needs(chosen, facts)),
        alternatives=tuple(alternatives(chosen, facts)),
        playbook=chosen.playbook,
        path=tuple(path),
        target=facts.target,
    )


# -- the answer -------------------------------------------------------------------------------------------------------


def costs(strategy: Strategy, facts: Facts) -> dict[str, Any]:
    """Return what the strategy costs this workload; ``more_pods`` is None where its replicas are not known."""
    more: int | None = None
    if facts.replicas is not None:
        more = math.ceil(round(facts.replicas * (strategy.resources - 1), 6))
    factor, downtime = strategy.resources, strategy.downtime
    if strategy.name == "rolling_update" and facts.workload != "Deployment":
        factor, more = 1.0, 0 if more is not None else None
        downtime = "on one node after the other" if facts.workload == "DaemonSet" else "none, with one pod less meanwhile"
    if strategy.name == "rolling_update" and _one_pod_is_replaced(facts):
        downtime = "yes, while its only pod is replaced"
    return {
        "downtime": downtime,
        "way_back": strategy.way_back,
        "resources": factor,
        "more_pods": more,
        "complexity": strategy.complexity,
        "duration": strategy.duration,
    }


def _one_pod_is_replaced(facts: Facts) -> bool:
    """Return whether an update takes the only pod away before there is another."""
    return facts.replicas == 1 and (facts.workload == "StatefulSet" or (facts.workload == "Deployment" and facts.room == 0))


def needs(strategy: Strategy, facts: Facts) -> list[str]:
    """Return what is missing here: what was wished for and cannot be had, and what the strategy itself lacks."""
    return [
        *_wishes(strategy, facts),
        *_room_needs(strategy, facts),
        *_route_needs(strategy, facts),
        *_workload_needs(strategy, facts),
        *(["A Canary for the workload: flagger_canary makes one."] if strategy.name == "flagger" else []),
    ]


def _wishes(strategy: Strategy, facts: Facts) -> list[str]:
    """Return the wishes that the strategy does not grant, with what is in their way."""
    wishes = (
        (facts.purpose == "compare_variants" and strategy.name != "ab_test", "To compare two variants", "ab_test"),
        (facts.purpose == "rehearse" and strategy.name != "shadow", "To rehearse without users", "shadow"),
        (bool(facts.instant_rollback) and strategy.name not in ("blue_green", "shadow"), "For an instant way back", "blue_green"),
        (bool(facts.risky) and strategy.name in ("recreate", "rolling_update"), "For few users to meet it first", "canary"),
    )
    found = [f"{wish}: {_lower(hindrance(name, facts) or '')}" for asked, wish, name in wishes if asked and hindrance(name, facts)]
    if not facts.downtime_ok and strategy.name == "recreate":
        found.append("For no downtime: a claim that is ReadWriteMany, or the data outside of the pods.")
    if not facts.downtime_ok and strategy.name == "rolling_update" and _one_pod_is_replaced(facts):
        found.append(f"For no downtime: {'room for one more pod' if facts.room == 0 else 'a second replica'}.")
    return found


def _room_needs(strategy: Strategy, facts: Facts) -> list[str]:
    """Return what is missing or not known of the room that the strategy takes."""
    more = costs(strategy, facts)["more_pods"]
    if strategy.name == "recreate" or more == 0:
        return []
    found = []
    if facts.room is None:
        found.append(f"Room for {_more_pods(more) if more else 'more pods'}: how much there is, is not known.")
    elif strategy.name == "rolling_update" and facts.room == 0:
        found.append("Room for one more pod: without it the update takes max_surge 0 and max_unavailable 1, one pod less meanwhile.")
    elif more and facts.room < more:
        found.append(f"Room for {_more_pods(more)}: there is room for {_room(facts)}, so fewer run.")
    if facts.room is not None and facts.requests is not None and not any(facts.requests.values()):
        found.append("Requests for cpu and memory: its pods have none, so that they fit is a guess.")
    return found


def _route_needs(strategy: Strategy, facts: Facts) -> list[str]:
    """Return what is missing or not known of the routing that the strategy takes."""
    ability = {"canary": "weight", "flagger": "weight", "ab_test": "match", "shadow": "mirror"}.get(strategy.name)
    found = []
    if strategy.name in ("blue_green", "ab_test", "shadow") and facts.services is None:
        found.append("A Service that selects its pods: which ones do is not known.")
    if ability:
        routes = routers(facts, ability)
        exact = ""
        if strategy.name == "canary":
            share = f", in steps of {100 / (facts.pods + 1):.0f} % of the requests" if facts.replicas else ""
            exact = f" Without one the canary goes by the ratio of replicas{share}."
        if routes.leading:
            pass
        elif routes.installed:
            router = routes.installed[0]
            found.append(f"A route: {router.title} can {ABILITIES[ability]}, but no {router.kind} leads to it.{exact}")
        elif routes.known:
            found.append(f"A router that can {ABILITIES[ability]}: there is none here.{exact}")
        else:
            found.append(f"A router that can {ABILITIES[ability]}: whether there is one is not known.{exact}")
    if strategy.name in ("canary", "flagger", "ab_test") and not facts.metrics:
        said = "nothing measures" if facts.metrics is False else "nobody has said whether something measures"
        found.append(f"Metrics to judge by: {said} how each version does.")
    return found


def _workload_needs(strategy: Strategy, facts: Facts) -> list[str]:
    """Return what the workload itself lacks for the strategy."""
    found = []
    wanted = {"recreate": "Recreate", "rolling_update": "RollingUpdate"}.get(strategy.name)
    if wanted and facts.update_strategy and facts.update_strategy != wanted:
        found.append(f"Its update strategy set to {wanted}: it is {facts.update_strategy} now.")
    if facts.readiness_probe is False and strategy.name != "recreate":
        found.append("A readinessProbe: without one its pods get requests before they can answer, and no strategy can help that.")
    if facts.replicas == 1 and not facts.downtime_ok and strategy.name not in ("recreate", "shadow") and not _one_pod_is_replaced(facts):
        found.append("A second replica: with one, the loss of its node is a downtime.")
    if facts.replicas == 0:
        found.append("Replicas: it has none now, so nobody can tell what it takes.")
    for claim in facts.claims or ():
        if not claim.get("access_modes"):
            found.append(f"To know how PersistentVolumeClaim {claim.get('name')} may be mounted: it could not be read.")
    if facts.autoscaler and strategy.name in ("blue_green", "canary", "ab_test", "shadow"):
        name, low, high = (facts.autoscaler.get(key) for key in ("name", "min", "max"))
        found.append(f"An autoscaler for the second Deployment: {name} ({low} to {high} pods) scales the first alone.")
    if strategy.name == "blue_green" and facts.selector and COLOR_LABEL not in facts.selector:
        found.append(
            f"A label that tells the colors apart: blue_green_color_label ({COLOR_LABEL} by default) must be one of those that it selects"
            f" by, and these are {', '.join(sorted(facts.selector))}."
        )
    if facts.unknown:
        found.append(f"The right to look: {', '.join(facts.unknown)} could not be read.")
    return found


def alternatives(chosen: Strategy, facts: Facts) -> list[dict[str, Any]]:
    """Return the other strategies, those that are possible first, each with why not."""
    found: list[dict[str, Any]] = []
    for strategy in STRATEGIES.values():
        if strategy is not chosen:
            against = hindrance(strategy.name, facts)
            found.append(
                {
                    "strategy": strategy.name,
                    "title": strategy.title,
                    "possible": not against,
                    "why_not": against or _why_not(strategy, chosen, facts),
                    "playbook": strategy.playbook,
                }
            )
    return sorted(found, key=lambda entry: (not entry["possible"], STRATEGIES[entry["strategy"]].complexity))


def _why_not(strategy: Strategy, chosen: Strategy, facts: Facts) -> str:
    """Return why a strategy that is possible is not the one that suits."""
    if strategy.name == "recreate" and not facts.downtime_ok:
        return "It has a downtime."
    if chosen.name == "ab_test":
        return "It does not tell which of two variants is better."
    if chosen.name == "shadow":
        return "Users would meet the new version before it is proven."
    if strategy.name == "rolling_update":
        return {
            "recreate": "It is less simple. Choose it where both versions may answer for a while: then there is no downtime.",
            "blue_green": "Its way back takes as long as the way there.",
        }.get(chosen.name, "All users get the new version before anybody has judged it.")
    if strategy.name == "blue_green" and facts.risky:
        return "All users get the new version at once."
    if strategy.name in ("canary", "flagger") and chosen.name == "blue_green":
        return "Its way back is not instant."
    if strategy.name == "canary" and chosen.name == "flagger":
        return "Flagger is here and takes its steps by itself."
    return {
        "recreate": "It has a downtime, and its way back is another one.",
        "blue_green": "It takes twice the resources, and an instant way back is not asked for.",
        "ab_test": "It compares two variants, and that is not asked for.",
        "shadow": "It rehearses with copies of requests, and that is not asked for.",
    }.get(strategy.name, "It is slow and complex, and nobody has called the change risky.")


def _by_router(facts: Facts, ability: str, what: str) -> str:
    """Return by which route something can be done, as a sentence."""
    found = routers(facts, ability)
    if found.leading:
        router, name = found.leading[0]
        return f"{what}: {router.kind} {name} leads to it."
    if found.installed:
        return f"{what}: {found.installed[0].title} is installed."
    return f"{what}, if a router here can do it; that is not known."


def _services(facts: Facts) -> str:
    """Return the Services that select its pods, as the subject of a sentence."""
    names = list(facts.services or ())
    return f"Service {names[0]}" if len(names) == 1 else f"Services {' and '.join([', '.join(names[:-1]), names[-1]])}"


def _room(facts: Facts) -> str:
    """Return how many more pods fit, and what limits that, as words."""
    capacity = facts.capacity or {}
    quota = capacity.get("quota") or {}
    if quota.get("pods") is not None and quota.get("pods") == facts.room:
        return f"{facts.room or 'none'} in ResourceQuota {quota.get('name')}"
    return f"{facts.room or 'none'} on the nodes"


def _more_pods(count: int) -> str:
    """Return a number of further pods as words."""
    return "1 more pod" if count == 1 else f"{count} more pods"


def _lower(sentence: str) -> str:
    """Return a sentence as it stands after a colon; a name at its start stays as it is."""
    first = sentence.split(" ")[0]
    return sentence if first[1:] != first[1:].lower() else sentence[:1].lower() + sentence[1:]
