# SPDX-License-Identifier: GPL-3.0-or-later
"""An application as its users have it before a release: one Deployment, one Service, and a route of any router that leads to it.

The route has a rule of somebody else before the one that is meant, so that a release can be seen to leave it alone.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.errors import NotFound

from .live import BIN, ROOT, clean_environment
from .routed import GATEWAYS, Manifest, Provider, Routed, service, version

KINDS = {"gateway_api": "HTTPRoute", "ingress_nginx": "Ingress", "istio": "VirtualService", "traefik": "IngressRoute"}
LABELS = {"app": "web", "track": "stable"}


def route_of(provider: Provider, host: str, subset: str = "") -> list[Manifest]:
    """Return the route ``web`` of a provider: /foreign to the Service foreign, all else to the Service web, or a subset of it."""
    if provider.name == "gateway_api":
        namespace, name = GATEWAYS[provider.router]
        rules = [
            {"matches": [{"path": {"type": "PathPrefix", "value": "/foreign"}}], "backendRefs": [{"name": "foreign", "port": 80}]},
            {"backendRefs": [{"name": "web", "port": 80}]},
        ]
        spec: Manifest = {"parentRefs": [{"name": name, "namespace": namespace}], "hostnames": [host], "rules": rules}
        return [{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "web"}, "spec": spec}]
    if provider.name == "istio":
        api = "networking.istio.io/v1"
        mine = {"host": "web", "subset": subset} if subset else {"host": "web"}
        foreign = {"match": [{"uri": {"prefix": "/foreign"}}], "route": [{"destination": {"host": "foreign"}}]}
        spec = {
            "hosts": [host],
            "gateways": ["istio-system/istio"],
            "http": [foreign, {"route": [{"destination": mine}], "timeout": "10s"}],
        }
        subsets = {"host": "web", "subsets": [{"name": subset, "labels": {"track": "stable"}}]}
        rule = {"apiVersion": api, "kind": "DestinationRule", "metadata": {"name": "web"}, "spec": subsets}
        return [*([rule] if subset else []), {"apiVersion": api, "kind": "VirtualService", "metadata": {"name": "web"}, "spec": spec}]
    if provider.name == "traefik":
        routes = [
            {"kind": "Rule", "match": f"Host(`{host}`) && PathPrefix(`/foreign`)", "services": [{"name": "foreign", "port": 80}]},
            {"kind": "Rule", "match": f"Host(`{host}`)", "services": [{"name": "web", "port": 80}]},
        ]
        spec = {"entryPoints": ["web"], "routes": routes}
        return [{"apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": {"name": "web"}, "spec": spec}]
    paths = [
        {"path": path, "pathType": "Prefix", "backend": {"service": {"name": name, "port": {"number": 80}}}}
        for path, name in (("/foreign", "foreign"), ("/", "web"))
    ]
    spec = {"ingressClassName": "nginx", "rules": [{"host": host, "http": {"paths": paths}}]}
    return [{"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"}, "spec": spec}]


class Application(Routed):
    """A namespace with the Deployment ``web``, the Services ``web`` and ``foreign``, and a route to both."""

    def deploy(self, stable: int = 2, canary: int = 0, image: str = "1.0.0") -> None:
        """Make the Deployment and the Services, and wait for the pods."""
        for name in ("web", "foreign"):
            self.create(service(name, {"app": "web"}))
        made = version("web", image, stable)
        made["metadata"]["labels"] = {"app": "web"}
        made["spec"]["selector"]["matchLabels"] = dict(LABELS)
        made["spec"]["template"]["metadata"]["labels"] = dict(LABELS)
        self.create(made)

    def lead(self, provider: Provider, subset: str = "", timeout: float = 60) -> None:
        """Make the route, and wait until its host answers."""
        self.put(*route_of(provider, self.host, subset))
        deadline = time.monotonic() + timeout
        while set(self.ask(provider.router, 5)) != {"1.0.0"}:
            assert time.monotonic() < deadline, f"{provider} does not route {self.host}: {self.ask(provider.router, 5)}"
            time.sleep(0.1)

    def state(self, *kinds: str) -> dict[str, Any]:
        """Return what a release may change and must leave as it was: names by kind, and of the route its spec and annotations."""
        names = {kind: self.names(kind) for kind in ("Deployment", "Service", "Ingress")}
        routes = {kind: self.read(kind) for kind in kinds}
        return {**names, **{kind: [found["spec"], found["metadata"].get("annotations")] for kind, found in routes.items()}}

    def names(self, kind: str) -> list[str]:
        """Return the names of the objects of a kind that are not on their way out."""
        listed = self.cluster._json("GET", self.ref(kind, "x").path.rpartition("/")[0])["items"]
        return sorted(entry["metadata"]["name"] for entry in listed if not entry["metadata"].get("deletionTimestamp"))

    def image(self, name: str = "web") -> str:
        """Return the tag of the image that a Deployment runs."""
        return self.get("Deployment", name)["spec"]["template"]["spec"]["containers"][0]["image"].rpartition(":")[2]

    def weight(self, provider: Provider, canary: str = "web-canary") -> float:
        """Return the percentage that the route sends to the canary, as it stands in the route."""
        found = self.read(KINDS[provider.name])["spec"]
        if provider.name == "ingress_nginx":
            try:
                return float(self.read("Ingress", "web-canary")["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary-weight"])
            except NotFound:
                return 0
        entries = {
            "gateway_api": lambda: found["rules"][-1]["backendRefs"],
            "istio": lambda: [{**entry, "name": _side(entry["destination"])} for entry in found["http"][-1]["route"]],
            "traefik": lambda: found["routes"][-1]["services"],
        }[provider.name]()
        return next((entry.get("weight", 1) for entry in entries if entry["name"] == canary), 0)


def _side(destination: Manifest) -> str:
    """Return the subset of a destination, or its host."""
    return destination.get("subset") or destination["host"]


def released(web: Application, playbook: str, variables: Mapping[str, Any], *arguments: str, fails: bool = False) -> str:
    """Run a playbook, and return what it printed."""
    done = web.playbook(playbook, variables, *arguments)
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stdout


def changed(output: str) -> int:
    """Return how many tasks changed something."""
    return int(re.findall(r"changed=(\d+)", output)[-1])


def starting(playbook: str, variables: Mapping[str, Any]) -> subprocess.Popen[str]:
    """Start a playbook in a process group of its own."""
    return subprocess.Popen(
        [str(BIN / "ansible-playbook"), playbook, "-e", json.dumps(dict(variables))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env=clean_environment(),
        cwd=ROOT,
        start_new_session=True,
    )
