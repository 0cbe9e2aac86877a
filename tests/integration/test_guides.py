# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command of the guides runs as it stands there, one after the other, and succeeds.

A YAML block that begins with ``# name.yml`` is a file of that name. In a console block each line that begins with ``$``
is a command. Only the namespace and the registry are replaced by those of the test. A line that ends in ``# fails`` must.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from support.live import APPLICATION, BIN, ROOT, WEB, Shop, clean_environment

pytestmark = pytest.mark.cluster
GUIDES = ROOT / "docs" / "guides"
BLOCK = re.compile(r"^```(yaml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What is there when a guide begins.
APPLICATIONS = {"blue_green.md": APPLICATION}
# Guides whose commands need something else than the cluster; a test of their own runs them.
ELSEWHERE = {"microk8s.md"}
PLACES = (("registry.example.com/web", "localhost:32000/podinfo"), ("registry.example.com", "localhost:32000"))


def steps(text: str) -> list[tuple[str, str]]:
    """Return the files and the commands of a guide in their order: ("file", text) or ("run", command)."""
    found: list[tuple[str, str]] = []
    for language, block in BLOCK.findall(text):
        if language == "yaml" and re.match(r"# [\w.-]+\.yml\b", block):
            found.append(("file", block))
        elif language == "console":
            joined = block.replace("\\\n", " ")
            found += [("run", line[2:]) for line in joined.splitlines() if line.startswith("$ ")]
    return found


@pytest.mark.parametrize(
    "guide", sorted(path.name for path in GUIDES.glob("*.md") if steps(path.read_text()) and path.name not in ELSEWHERE)
)
def test_commands_of_a_guide_run_as_they_stand(empty: Shop, tmp_path: Path, guide: str) -> None:
    found = steps((GUIDES / guide).read_text())
    empty.apply(APPLICATIONS.get(guide, WEB))
    (tmp_path / "cluster.yml").write_text(f"delivery_kubeconfig: {empty.kubeconfig}\n")
    environment = clean_environment(K8S_AUTH_KUBECONFIG=empty.kubeconfig)
    environment["PATH"] = f"{BIN}:{environment['PATH']}"
    for what, text in found:
        for here, there in PLACES:
            text = text.replace(here, there)
        text = re.sub(r"\bshop\b", empty.namespace, text)
        if what == "file":
            (tmp_path / text.split()[1]).write_text(text)
            continue
        done = subprocess.run(text, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) == text.endswith("# fails"), f"{text}\n{done.stdout}{done.stderr}"


def test_who_has_the_role_of_the_guide_can_release(shop: Shop, tmp_path: Path) -> None:
    text = (GUIDES / "permissions.md").read_text().replace("namespace: shop", f"namespace: {shop.namespace}")
    role = yaml.safe_load(BLOCK.findall(text)[0][1])
    account = {"kind": "ServiceAccount", "name": "default", "namespace": shop.namespace}
    binding = {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "release"}, "subjects": [account]}
    base = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{shop.namespace}"
    shop.cluster._json("POST", f"{base}/roles", {}, role)
    meta = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "release"}}
    shop.cluster._json("POST", f"{base}/rolebindings", {}, {**meta, **binding})
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = f"/api/v1/namespaces/{shop.namespace}/serviceaccounts/default/token"
    document = yaml.safe_load(Path(shop.kubeconfig).read_text())
    document["users"][0]["user"] = {"token": shop.cluster._json("POST", path, {}, request)["status"]["token"]}
    limited = tmp_path / "limited.kubeconfig"
    limited.write_text(yaml.safe_dump(document))
    for given in ({}, {"blue_green_state": "rolled_back"}):
        done = shop.blue_green("localhost:32000/podinfo:2.0.0", blue_green_kubeconfig=str(limited), **given)
        assert done.returncode == 0, done.stdout
    assert shop.color() == "blue" and not shop.exists("Lease", "blue-green-web")
    common = {"kubeconfig": str(limited), "namespace": shop.namespace, "name": "web-blue"}
    release = {f"rolling_update_{key}": value for key, value in {**common, "image": "localhost:32000/podinfo:3.0.0", "observe": 0}.items()}
    done = shop.playbook("progressive.delivery.rolling_update", {**release, "rolling_update_smoke_tests": [{"path": "/healthz"}]})
    assert done.returncode == 0, done.stdout
    done = shop.playbook("progressive.delivery.rollback", {f"rollback_{key}": value for key, value in common.items()})
    assert done.returncode == 0, done.stdout
