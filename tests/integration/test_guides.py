# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command of the guides runs as it stands there; those that need a router are run beside the tests of routers."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.guides import BLOCK, FLAGGER, GUIDES, ROUTED, follow, with_commands
from support.live import APPLICATION, ROOT, WEB, Shop

pytestmark = pytest.mark.cluster
# Whose commands are run, and looked at more closely, in a test of its own.
ELSEWHERE = {
    "choosing_a_strategy.md": "integration/test_recommend.py",
    "good_practices.md": "integration/test_practices.py",
    "installing_flagger.md": "flagger/test_install.py",
    "microk8s.md": "integration/test_microk8s.py",
    "platform.md": "provision/test_platform.py",
}
# What is there when a guide begins.
APPLICATIONS = {"blue_green.md": APPLICATION}


@pytest.mark.parametrize("guide", [name for name in with_commands() if name not in (*ROUTED, *ELSEWHERE, *FLAGGER)])
def test_commands_of_a_guide_run_as_they_stand(empty: Shop, tmp_path: Path, guide: str) -> None:
    empty.apply(APPLICATIONS.get(guide, WEB))
    follow(guide, empty, tmp_path)


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


def test_the_other_guides_are_run_where_it_is_said() -> None:
    for guide, test in ELSEWHERE.items():
        assert f'"{guide}"' in (ROOT / "tests" / test).read_text()
