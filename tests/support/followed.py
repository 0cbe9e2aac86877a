# SPDX-License-Identifier: GPL-3.0-or-later
"""An application that Flagger releases: one Deployment, and a Canary that makes its Services and its route.

Each test has a namespace and a host name of its own. Flagger takes ten seconds between two looks for the least, so a release
of four steps takes about a minute.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from ansible_collections.progressive.delivery.plugins.module_utils.model import MERGE_PATCH, Ref
from ansible_collections.progressive.delivery.plugins.modules import wait_canary

from .live import Traffic
from .releasing import Application
from .routed import GATEWAYS, IMAGE, Manifest, version

FLAGGER = "flagger-system"
PROMETHEUS = f"http://flagger-prometheus.{FLAGGER}:9090"
TESTER = f"http://flagger-loadtester.{FLAGGER}"
SCRAPED = {"prometheus.io/scrape": "true", "prometheus.io/port": "9898", "prometheus.io/path": "/metrics"}
# A program that posts its second argument to its first.
POST = (
    "import sys, urllib.request as u; request = u.Request(sys.argv[1], data=sys.argv[2].encode(), method='POST');"
    "u.build_opener(u.ProxyHandler({})).open(request, timeout=10).read()"
)
# The share of answers that are no errors, in percent, as the application counts them.
SUCCESS = """
  100 * sum(rate(http_request_duration_seconds_count{
    kubernetes_namespace="{{ namespace }}", kubernetes_pod_name=~"{{ target }}-[0-9a-z]+-[0-9a-z]+", status!~"5.*"}[{{ interval }}]))
  / sum(rate(http_request_duration_seconds_count{
    kubernetes_namespace="{{ namespace }}", kubernetes_pod_name=~"{{ target }}-[0-9a-z]+-[0-9a-z]+"}[{{ interval }}]))
"""
# The share of errors, in percent, as Traefik counts them.
ERRORS = """
  100 * sum(rate(traefik_service_requests_total{service=~"{{ namespace }}-{{ service }}-canary-.*", code=~"5.*"}[{{ interval }}]))
  / sum(rate(traefik_service_requests_total{service=~"{{ namespace }}-{{ service }}-canary-.*"}[{{ interval }}]))
"""


def application(image: str = "1.0.0", replicas: int = 2) -> Manifest:
    """Return the Deployment ``web`` whose pods tell Prometheus that they have metrics."""
    made = version("web", image, replicas)
    made["metadata"]["labels"] = {"app": "web"}
    made["spec"]["selector"]["matchLabels"] = {"app": "web"}
    made["spec"]["template"]["metadata"] = {"labels": {"app": "web"}, "annotations": dict(SCRAPED)}
    made["spec"]["progressDeadlineSeconds"] = 60
    return made


def template(name: str, query: str) -> Manifest:
    """Return a MetricTemplate that asks Prometheus."""
    spec = {"provider": {"type": "prometheus", "address": PROMETHEUS}, "query": query}
    return {"apiVersion": "flagger.app/v1beta1", "kind": "MetricTemplate", "metadata": {"name": name}, "spec": spec}


def metric(name: str, **limits: float) -> Manifest:
    """Return a metric of an analysis that uses the template of its name."""
    return {"name": name, "templateRef": {"name": name}, "thresholdRange": limits, "interval": "10s"}


def gate(name: str, kind: str, path: str = "check") -> Manifest:
    """Return a webhook at which a release waits until somebody opens it in the load tester."""
    return {"name": name, "type": kind, "url": f"{TESTER}/gate/{path}"}


class Followed(Application):
    """A namespace with the Deployment ``web`` and the Canary ``web``."""

    router = "traefik"

    @property
    def host(self) -> str:
        """Return the host name of this namespace's route."""
        return f"{self.namespace}.example.com"

    def users(self, rate: float = 200, **headers: str) -> Traffic:
        """Return continuous traffic to the host."""
        return self.traffic_at(self.router, rate, **headers)

    def begin(self, router: str = "traefik", timeout: float = 120, **analysis: Any) -> None:
        """Make Deployment and Canary, and wait until Flagger has given the traffic to the primary and the host answers."""
        self.router = router
        self.create(application())
        self.create(self.canary(**analysis))
        found = self.step(wait_canary, name="web", until="initialized", timeout=timeout)
        assert "failed" not in found, found
        self.answers(timeout=timeout)

    def canary(self, **analysis: Any) -> Manifest:
        """Return the Canary, of Gateway API on Traefik or of Istio."""
        service: Manifest = {"port": 80, "targetPort": 9898, "hosts": [self.host]}
        provider = "gatewayapi:v1"
        if self.router == "istio":
            provider = "istio"
            service |= {"gateways": ["istio-system/istio"]}
        else:
            namespace, name = GATEWAYS[self.router]
            service |= {"gatewayRefs": [{"name": name, "namespace": namespace}]}
        spec = {
            "provider": provider,
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "progressDeadlineSeconds": 60,
            "service": service,
            "analysis": {"interval": "10s", "threshold": 2, **({} if "iterations" in analysis else {"stepWeights": [20, 50]}), **analysis},
        }
        return {"apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "web"}, "spec": spec}

    def answers(self, timeout: float = 30) -> None:
        """Wait until the router leads the host to the application."""
        deadline = time.monotonic() + timeout
        while set(self.ask(self.router, 5)) != {"1.0.0"}:
            assert time.monotonic() < deadline, self.ask(self.router, 5)
            time.sleep(0.2)

    def release(self, image: str, **variables: Any) -> dict[str, Any]:
        """Return the variables of a release."""
        return {
            "flagger_release_kubeconfig": self.kubeconfig,
            "flagger_release_namespace": self.namespace,
            "flagger_release_canary": "web",
            "flagger_release_image": f"{IMAGE}:{image}",
            "flagger_release_timeout": 300,
            **variables,
        }

    def ask_gate(self, what: str) -> None:
        """Open or close the Canary's gate in the load tester, from within the cluster's network."""
        name, namespace = TESTER.removeprefix("http://").split(".")
        found = self.cluster._json("GET", f"/api/v1/namespaces/{namespace}/services/{name}")
        url = f"http://{found['spec']['clusterIP']}/gate/{what}"
        body = json.dumps({"name": "web", "namespace": self.namespace})
        subprocess.run([*self.network, sys.executable, "-c", POST, url, body], check=True)

    def phase(self) -> str:
        """Return the Canary's phase."""
        return self.get("Canary", "web")["status"]["phase"]

    def set(self, **spec: Any) -> None:
        """Change the Canary's spec."""
        self.cluster.patch(Ref("Canary", self.namespace, "web"), {"spec": spec}, MERGE_PATCH)
