# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration and the command line of each component."""

from __future__ import annotations

import json
from pathlib import Path

from . import build
from .config import DNS, PODS, REGISTRY, SERVICES, Cluster
from .processes import start

QPS = ("--kube-api-qps=500", "--kube-api-burst=1000")


def binaries() -> dict[str, Path]:
    """Return the folder of the binaries of each part that a cluster needs."""
    return {name: build.folder(name) for name in ("kubernetes", "etcd", "containerd", "registry")}


def write(cluster: Cluster) -> None:
    """Write the configuration files; written again with each start, they are the same."""
    folder = cluster.dir
    pki = folder / "pki"
    _put(folder / "cni" / "10-pods.conflist", json.dumps(_cni(cluster), indent=1))
    _put(folder / "containerd.toml", _containerd(cluster))
    _put(folder / "registry.yaml", json.dumps(_registry(cluster), indent=1))
    _put(
        folder / "kubelet.yaml",
        json.dumps(
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "authentication": {
                    "anonymous": {"enabled": False},
                    "webhook": {"enabled": True},
                    "x509": {"clientCAFile": f"{pki}/ca.crt"},
                },
                "authorization": {"mode": "Webhook"},
                "cgroupDriver": "cgroupfs",
                "cgroupRoot": cluster.cgroup,
                "clusterDNS": [DNS],
                "clusterDomain": "cluster.local",
                "containerRuntimeEndpoint": f"unix://{cluster.socket}",
                "enforceNodeAllocatable": [],
                "eventRecordQPS": 0,
                "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
                "failCgroupV1": False,
                "failSwapOn": False,
                "kubeAPIQPS": 500,
                "kubeAPIBurst": 1000,
                "maxPods": 200,
                "podLogsDir": f"{folder}/pod-logs",
                "registryPullQPS": 0,
                "resolvConf": "",
                "serializeImagePulls": False,
                "syncFrequency": "10s",
                "tlsCertFile": f"{pki}/kubelet.crt",
                "tlsPrivateKeyFile": f"{pki}/kubelet.key",
                "volumePluginDir": f"{folder}/volume-plugins",
            },
            indent=1,
        ),
    )
    _put(
        folder / "kube-proxy.yaml",
        json.dumps(
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "clientConnection": {"kubeconfig": f"{folder}/proxy.kubeconfig", "qps": 500, "burst": 1000},
                "clusterCIDR": PODS,
                "conntrack": {"maxPerCore": 0},
                "mode": "nftables",
                "nftables": {"minSyncPeriod": "0s"},
            },
            indent=1,
        ),
    )


def start_base(cluster: Cluster) -> None:
    """Start what needs no API server, and the API server."""
    found, folder = binaries(), cluster.dir
    start(
        cluster,
        "etcd",
        [
            f"{found['etcd']}/etcd",
            f"--data-dir={folder}/etcd",
            "--unsafe-no-fsync",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
        ],
    )
    start(cluster, "registry", [f"{found['registry']}/registry", "serve", f"{folder}/registry.yaml"])
    start(
        cluster,
        "containerd",
        [f"{found['containerd']}/containerd", "--config", f"{folder}/containerd.toml"],
        path=[str(found["containerd"])],
    )
    pki = folder / "pki"
    start(
        cluster,
        "kube-apiserver",
        [
            f"{found['kubernetes']}/kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={cluster.address}",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            f"--client-ca-file={pki}/ca.crt",
            f"--service-account-key-file={pki}/sa.pub",
            f"--service-account-signing-key-file={pki}/sa.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            f"--kubelet-client-certificate={pki}/admin.crt",
            f"--kubelet-client-key={pki}/admin.key",
            # Else exec and logs try to resolve the node's name.
            "--kubelet-preferred-address-types=InternalIP",
        ],
    )


def start_rest(cluster: Cluster) -> None:
    """Start what talks to the API server, once that answers: none of them then waits in a back-off."""
    found, folder = binaries()["kubernetes"], cluster.dir
    pki = folder / "pki"
    start(
        cluster,
        "kube-controller-manager",
        [
            f"{found}/kube-controller-manager",
            f"--kubeconfig={folder}/controller-manager.kubeconfig",
            f"--service-account-private-key-file={pki}/sa.key",
            f"--root-ca-file={pki}/ca.crt",
            f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--cluster-cidr=10.244.0.0/16",
            "--allocate-node-cidrs",
            *QPS,
        ],
    )
    start(
        cluster,
        "kube-scheduler",
        [f"{found}/kube-scheduler", f"--kubeconfig={folder}/scheduler.kubeconfig", "--leader-elect=false", *QPS],
    )
    start(
        cluster,
        "kubelet",
        [
            f"{found}/kubelet",
            f"--config={folder}/kubelet.yaml",
            f"--kubeconfig={folder}/kubelet.kubeconfig",
            "--hostname-override=node-1",
            f"--node-ip={cluster.address}",
            f"--root-dir={folder}/kubelet",
            f"--cert-dir={folder}/kubelet-pki",
        ],
    )
    start(cluster, "kube-proxy", [f"{found}/kube-proxy", f"--config={folder}/kube-proxy.yaml", "--hostname-override=node-1"])


def _put(path: Path, text: str) -> None:
    """Write a file and the folder that it is in, unless it is the same: kube-proxy ends when its own is written again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text + "\n":
        path.write_text(text + "\n")


def _cni(cluster: Cluster) -> dict[str, object]:
    """Return the pod network: a bridge, addresses kept in the cluster's own folder."""
    return {
        "cniVersion": "1.0.0",
        "name": f"pods-{cluster.name}",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": f"{cluster.dir}/cni-addresses",
                    "ranges": [[{"subnet": PODS}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def _containerd(cluster: Cluster) -> str:
    """Return containerd's configuration. Without CAP_SYS_RESOURCE runc fails unless scores are restricted."""
    folder = cluster.dir
    return f"""version = 3
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
[grpc]
  address = "{cluster.socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/containerd/opt"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{REGISTRY}/pause:1"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      Root = "{folder}/containerd/runc"
      SystemdCgroup = false"""


def _registry(cluster: Cluster) -> dict[str, object]:
    """Return the registry's configuration: where MicroK8s' addon has it, kept in the cluster's folder."""
    return {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": f"{cluster.dir}/registry"}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:32000"},
    }
