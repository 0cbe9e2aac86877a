# SPDX-License-Identifier: GPL-3.0-or-later
"""Prints the moment at which the API server showed each generation of a namespace's Deployments to be complete.

A process of its own, with a watch and a notion of "complete" of its own: none of the code that is measured. Prints JSON
lines: the name, the generation, and the monotonic clock when the event that made it complete arrived.

usage: watcher.py KUBECONFIG NAMESPACE
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from kubernetes import client, config


def connection(settings: Any) -> http.client.HTTPSConnection:
    """Return a connection to the API server that the kubeconfig names."""
    context = ssl.create_default_context(cafile=settings.ssl_ca_cert)
    if not settings.verify_ssl:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, settings.key_file)
    address = urlsplit(settings.host)
    return http.client.HTTPSConnection(address.hostname or "", address.port or 443, context=context)


def is_complete(deployment: dict[str, Any]) -> bool:
    """Return whether the rollout is complete: kubectl's rule for a Deployment, and all pods available."""
    spec, status = deployment["spec"], deployment.get("status", {})
    wanted = spec["replicas"]
    return (
        status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        and status.get("updatedReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
    )


def main(kubeconfig: str, namespace: str) -> None:
    """Watch until killed."""
    settings = client.Configuration()
    config.load_kube_config(kubeconfig, client_configuration=settings)
    headers = {"Accept": "application/json"}
    for entry in settings.auth_settings().values():
        headers[entry["key"]] = entry["value"]
    server = connection(settings)
    seen: set[tuple[str, int]] = set()
    while True:
        server.request("GET", f"{urlsplit(settings.host).path}/apis/apps/v1/namespaces/{namespace}/deployments?watch=true", headers=headers)
        response = server.getresponse()
        if response.status != 200:
            sys.exit(f"the watch was refused: {response.status} {response.reason}")
        for line in response:
            now = time.monotonic()
            event = json.loads(line)
            if event["type"] not in ("ADDED", "MODIFIED"):
                continue
            deployment = event["object"]
            key = (deployment["metadata"]["name"], deployment["metadata"]["generation"])
            if key not in seen and is_complete(deployment):
                seen.add(key)
                print(json.dumps({"name": key[0], "generation": key[1], "at": now}), flush=True)
        server.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
