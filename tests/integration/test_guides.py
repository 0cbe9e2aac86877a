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
from support.live import APPLICATION, BIN, ROOT, WEB, Shop, clean_environment

pytestmark = pytest.mark.cluster
GUIDES = ROOT / "docs" / "guides"
BLOCK = re.compile(r"^```(yaml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What is there when a guide begins.
APPLICATIONS = {"blue_green.md": APPLICATION}
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


@pytest.mark.parametrize("guide", sorted(path.name for path in GUIDES.glob("*.md") if steps(path.read_text())))
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
