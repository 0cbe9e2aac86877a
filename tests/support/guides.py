# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command of a guide runs as it stands there, one after the other, and succeeds.

A YAML block that begins with ``# name.yml`` is a file of that name. In a console block each line that begins with ``$``
is a command. Only the namespace, the registry and the addresses are replaced by those of the test. A line that ends in
``# fails`` must.

A guide to what routers do has its line in ROUTED, and is run on the cluster that has some.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from .live import BIN, ROOT, Shop, clean_environment
from .routed import Provider

GUIDES = ROOT / "docs" / "guides"
BLOCK = re.compile(r"^```(yaml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACES = (("registry.example.com/web", "localhost:32000/podinfo"), ("registry.example.com", "localhost:32000"))
# Guides that need Flagger, which are run beside its tests.
FLAGGER = ("flagger.md", "flagger_adopt.md")
# {guide: the route ``web`` that is there when it begins}
ROUTED = {
    "ab_test.md": Provider("gateway_api", "traefik"),
    "canary.md": Provider("gateway_api", "traefik"),
    "shadow.md": Provider("traefik", "traefik"),
}


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


def with_commands() -> list[str]:
    """Return the names of the guides that have commands."""
    return sorted(path.name for path in GUIDES.glob("*.md") if steps(path.read_text()))


def follow(guide: str, shop: Shop, folder: Path, places: Iterable[tuple[str, str]] = ()) -> None:
    """Do what a guide says, in a namespace where everything is that it begins with; ``places`` are replaced too."""
    (folder / "cluster.yml").write_text(f"delivery_kubeconfig: {shop.kubeconfig}\n")
    environment = clean_environment(K8S_AUTH_KUBECONFIG=shop.kubeconfig)
    environment["PATH"] = f"{BIN}:{environment['PATH']}"
    for what, text in steps((GUIDES / guide).read_text()):
        for here, there in (*places, *PLACES):
            text = text.replace(here, there)
        text = re.sub(r"\bshop\b", shop.namespace, text)
        if what == "file":
            (folder / text.split()[1]).write_text(text)
            continue
        done = subprocess.run(text, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode != 0) == text.endswith("# fails"), f"{text}\n{done.stdout}{done.stderr}"
