# SPDX-License-Identifier: GPL-3.0-or-later
"""Routers, started on demand: Traefik and Istio, with the API types that they serve and a gateway at a fixed address each."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import build, images
from .addons import kubectl
from .config import REGISTRY, STATE, Cluster, ClusterError, locked
from .lifecycle import ask
from .processes import run, wait_until

Manifest = dict[str, object]
GATEWAY_API = "gateway.networking.k8s.io/v1"
RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True)
class Stage:
    """What is applied at once, as JSON or YAML or from files, and what is waited for then: API types, or a Deployment (namespace/name)."""

    text: str = ""
    files: tuple[Path, ...] = ()
    deployment: str = ""


@dataclass(frozen=True)
class Router:
    """A router: the parts that it is built from, how it is deployed, its Gateway, and where it answers."""

    name: str
    parts: tuple[str, ...]
    deployments: tuple[str, ...]
    gateway: str
    address: str
    node_port: int
    stages: Callable[[], list[Stage]]


def named(words: str) -> list[Router]:
    """Return the routers that ``--with`` names, or raise ClusterError."""
    names = [word.strip() for word in words.split(",") if word.strip()]
    for name in names:
        if name not in ROUTERS:
            raise ClusterError(f'there is no router "{name}"; --with takes: {", ".join(ROUTERS)}')
    return [ROUTERS[name] for name in dict.fromkeys(names)]


def ensure(cluster: Cluster, router: Router) -> None:
    """Deploy a router and wait until it answers; where that was done before, look whether it still is ready."""
    with locked(STATE / f".{cluster.name}.lock"):
        if not (cluster.dir / "number").exists():
            raise ClusterError(f"cluster {cluster.name} was taken down meanwhile; run it again")
        images.ensure(cluster, router.name)
        mark = _mark(cluster, router)
        if mark.exists() and mark.read_text() == _fingerprint(router) and is_ready(cluster, router):
            return
        print(f"deploying {router.name} in cluster {cluster.name}", flush=True)
        try:
            _deploy(cluster, router)
        except ClusterError as error:
            pods = kubectl(cluster, "get", "pods", "--all-namespaces", "-o", "wide")
            raise ClusterError(f"{router.name} does not come up: {error}; {pods}") from None
        mark.write_text(_fingerprint(router))


def deployed(cluster: Cluster) -> list[Router]:
    """Return the routers that were deployed in a cluster."""
    return [router for router in ROUTERS.values() if _mark(cluster, router).exists()]


def is_ready(cluster: Cluster, router: Router) -> bool:
    """Return whether all of a router's pods are ready and it answers at its address."""
    for deployment in router.deployments:
        namespace, _slash, name = deployment.partition("/")
        found = ask(cluster, f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")
        status = found["status"] if found else {}
        if not found or status.get("observedGeneration") != found["metadata"]["generation"]:
            return False
        if not status.get("replicas") or not status["replicas"] == status.get("updatedReplicas") == status.get("availableReplicas"):
            return False
    return _answers(cluster, router)


def _deploy(cluster: Cluster, router: Router) -> None:
    """Apply the stages, each after what was waited for in the one before, until the Gateway is there and the router answers."""
    apply = ("apply", "--server-side", "--force-conflicts", "--field-manager=cluster")
    for stage in router.stages():
        for file in stage.files:
            kubectl(cluster, *apply, "-f", str(file))
        if stage.text:
            kubectl(cluster, *apply, "-f", "-", data=stage.text)
        if stage.deployment:
            namespace, _slash, name = stage.deployment.partition("/")
            kubectl(cluster, "-n", namespace, "rollout", "status", f"deployment/{name}", "--timeout=180s")
        else:
            kubectl(cluster, "wait", "--for=condition=Established", "customresourcedefinitions", "--all", "--timeout=60s")
    namespace, _slash, name = router.gateway.partition("/")
    gateway = f"gateways.gateway.networking.k8s.io/{name}"
    kubectl(cluster, "-n", namespace, "wait", "--for=condition=Programmed", gateway, "--timeout=60s")
    if not wait_until(lambda: _answers(cluster, router), 60, pause=0.2):
        raise ClusterError(f"nothing answers at http://{cluster.address}:{router.node_port}")


def _answers(cluster: Cluster, router: Router) -> bool:
    """Return whether the router speaks HTTP at its port of the node; without a route it says 404."""
    connection = http.client.HTTPConnection(cluster.address, router.node_port, timeout=3)
    try:
        connection.request("GET", "/", headers={"Host": "nobody.invalid"})
        return connection.getresponse().status == 404
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _mark(cluster: Cluster, router: Router) -> Path:
    """Return the file that says which build of the router was deployed; it goes when the cluster's objects go."""
    return cluster.dir / "etcd" / f"router-{router.name}"


def _fingerprint(router: Router) -> str:
    """Return what a deployed router depends on, as a hash."""
    found = hashlib.sha256(Path(__file__).read_bytes())
    for part in router.parts:
        found.update(build.folder(part).name.encode())
    return found.hexdigest()


def _list(*items: Manifest) -> str:
    """Return manifests as one document."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(items)})


def _namespace(name: str) -> Manifest:
    """Return the manifest of a namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _traefik() -> list[Stage]:
    """Return the manifests of Traefik with all four of its Kubernetes providers."""
    meta = {"name": "traefik", "namespace": "traefik"}
    labels = {"app.kubernetes.io/name": "traefik"}
    address = ROUTERS["traefik"].address
    container = {
        "name": "traefik",
        "image": f"{REGISTRY}/traefik:{images.TRAEFIK}",
        "args": [
            "--entrypoints.web.address=:80",
            "--entrypoints.web.asdefault=true",
            "--entrypoints.metrics.address=:9100",
            "--ping=true",
            "--ping.entrypoint=metrics",
            "--metrics.prometheus=true",
            "--metrics.prometheus.entrypoint=metrics",
            "--providers.kubernetescrd=true",
            "--providers.kubernetesgateway=true",
            f"--providers.kubernetesgateway.statusaddress.ip={address}",
            "--providers.kubernetesingress=true",
            f"--providers.kubernetesingress.ingressendpoint.ip={address}",
            "--providers.kubernetesingressnginx=true",
            "--providers.kubernetesingressnginx.httpentrypoint=web",
            f"--providers.kubernetesingressnginx.publishstatusaddress={address}",
            "--global.checknewversion=false",
            "--global.sendanonymoususage=false",
            "--log.level=INFO",
        ],
        "ports": [{"name": "web", "containerPort": 80}, {"name": "metrics", "containerPort": 9100}],
        # On a machine that is busy an answer may take more than the second that is the default.
        "readinessProbe": {
            "httpGet": {"path": "/ping", "port": "metrics"},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True},
    }
    pod = {
        "serviceAccountName": "traefik",
        "securityContext": {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]},
        "containers": [container],
    }
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": "9100", "prometheus.io/path": "/metrics"}
    read, write = ["get", "list", "watch"], ["update", "patch"]
    rules = [
        {"apiGroups": [""], "resources": ["configmaps", "namespaces", "nodes", "pods", "secrets", "services"], "verbs": read},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses", "ingressclasses"], "verbs": read},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses/status"], "verbs": write},
        {"apiGroups": ["traefik.io", "gateway.networking.k8s.io"], "resources": ["*"], "verbs": read},
        {"apiGroups": ["gateway.networking.k8s.io"], "resources": [f"{kind}/status" for kind in STATUS], "verbs": write},
    ]
    return [
        Stage(files=(build.folder("gateway-api") / "crds", build.folder("traefik") / "crds.yaml")),
        Stage(
            _list(
                _namespace("traefik"),
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
                {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": "traefik"}, "rules": rules},
                {
                    "apiVersion": f"{RBAC}/v1",
                    "kind": "ClusterRoleBinding",
                    "metadata": {"name": "traefik"},
                    "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "traefik"},
                    "subjects": [{"kind": "ServiceAccount", **meta}],
                },
                _ingress_class("traefik", "traefik.io/ingress-controller"),
                _ingress_class("nginx", "k8s.io/ingress-nginx"),
                {
                    "apiVersion": GATEWAY_API,
                    "kind": "GatewayClass",
                    "metadata": {"name": "traefik"},
                    "spec": {"controllerName": "traefik.io/gateway-controller"},
                },
                {
                    "apiVersion": GATEWAY_API,
                    "kind": "Gateway",
                    "metadata": meta,
                    "spec": {"gatewayClassName": "traefik", "listeners": [_listener()]},
                },
                {
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "metadata": meta,
                    "spec": {
                        "replicas": 1,
                        "selector": {"matchLabels": labels},
                        "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod},
                    },
                },
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": meta,
                    "spec": {
                        "type": "NodePort",
                        "clusterIP": address,
                        "selector": labels,
                        "ports": [{"name": "web", "port": 80, "targetPort": "web", "nodePort": ROUTERS["traefik"].node_port}],
                    },
                },
            ),
            deployment="traefik/traefik",
        ),
    ]


def _istio() -> list[Stage]:
    """Return istiod and an ingress gateway from Istio's own charts, and a Gateway of each of its two APIs at that gateway.

    The Envoy that is there is not Istio's own build and has none of Istio's filters: what would put them in is turned off.
    """
    small = {"requests": {"cpu": "10m", "memory": "64Mi"}}
    release, namespace = "istio-ingressgateway", "istio-system"
    istiod = {
        "autoscaleEnabled": False,
        "resources": small,
        "telemetry": {"enabled": False},
        "meshConfig": {"enablePrometheusMerge": False},
        "env": {"PILOT_ENABLE_METADATA_EXCHANGE": "false", "PILOT_ENABLE_ALPN_FILTER": "false"},
        "global": {
            "hub": f"{REGISTRY}/istio",
            "tag": images.ISTIO,
            "imagePullPolicy": "IfNotPresent",
            "defaultPodDisruptionBudget": {"enabled": False},
            "proxy": {"readinessPeriodSeconds": 1},
        },
    }
    gateway = {
        "autoscaling": {"enabled": False},
        "resources": small,
        "podAnnotations": {"prometheus.io/port": "15090"},
        "service": {
            "type": "NodePort",
            "clusterIP": ROUTERS["istio"].address,
            "ports": [{"name": "http2", "port": 80, "targetPort": 80, "nodePort": ROUTERS["istio"].node_port}],
        },
    }
    # Istio looks for a Gateway's pods when the Gateway changes, not when its pods come back: changed each time, it is looked at again.
    meta = {"name": "istio", "namespace": namespace, "annotations": {"cluster/deployed": str(time.time())}}
    hostname = f"{release}.{namespace}.svc.cluster.local"
    entry = {
        "apiVersion": GATEWAY_API,
        "kind": "Gateway",
        "metadata": meta,
        # Names the gateway's Service: else Istio deploys an Envoy of its own for each Gateway.
        "spec": {
            "gatewayClassName": "istio",
            "addresses": [{"type": "Hostname", "value": hostname}],
            "listeners": [_listener()],
        },
    }
    own = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": meta,
        "spec": {
            "selector": {"istio": "ingressgateway"},
            "servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}],
        },
    }
    first = json.dumps(_namespace(namespace)) + "\n---\n"
    return [
        Stage(first + _chart("istio-base", "base", namespace, {"defaultRevision": "default"}), (build.folder("gateway-api") / "crds",)),
        Stage(_chart("istiod", "istiod", namespace, istiod), deployment=f"{namespace}/istiod"),
        Stage(_chart(release, "gateway", namespace, gateway), deployment=f"{namespace}/{release}"),
        Stage(_list(own, entry)),
    ]


def _chart(release: str, chart: str, namespace: str, values: Manifest) -> str:
    """Return the manifests of one of Istio's charts."""
    command = [f"{build.folder('helm')}/helm", "template", release, f"{build.folder('istio')}/charts/{chart}"]
    return run([*command, f"--namespace={namespace}", f"--kube-version={build.KUBERNETES}", "--values=-"], data=json.dumps(values))


def _ingress_class(name: str, controller: str) -> Manifest:
    """Return the manifest of an IngressClass."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": name},
        "spec": {"controller": controller},
    }


def _listener() -> Manifest:
    """Return the listener of a Gateway: port 80, for the routes of every namespace."""
    return {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}


STATUS = ("gatewayclasses", "gateways", "httproutes", "grpcroutes", "tcproutes", "tlsroutes", "referencegrants", "backendtlspolicies")
ROUTERS: dict[str, Router] = {
    router.name: router
    for router in (
        Router(
            "traefik",
            parts=("gateway-api", "traefik"),
            deployments=("traefik/traefik",),
            gateway="traefik/traefik",
            address="10.96.0.80",
            node_port=30080,
            stages=_traefik,
        ),
        Router(
            "istio",
            parts=("gateway-api", "helm", "envoy", "istio"),
            deployments=("istio-system/istiod", "istio-system/istio-ingressgateway"),
            gateway="istio-system/istio",
            address="10.96.0.81",
            node_port=30081,
            stages=_istio,
        ),
    )
}
