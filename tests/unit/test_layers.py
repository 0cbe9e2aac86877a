# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may import whom: read from the sources, so that a layer cannot be crossed by accident."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
UTILS = PLUGINS / "module_utils"
PREFIX = "ansible_collections.progressive.delivery.plugins.module_utils."
PURE = {"model", "errors", "plan", "routes"}
TALKS_TO_KUBERNETES = {"cluster.py", "login.py", "watching.py"}
KNOWS_ANSIBLE = {"run.py"}
MAKES_TRAFFIC = {"load.py"}


def imports(source: str) -> set[str]:
    """Return the modules that a source imports; relative ones with their dots."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in ("__import__", "import_module"):
            found.add("importlib")
    return found


def offences(path: str, source: str) -> list[str]:
    """Return what a file of module_utils or modules imports and may not."""
    parts = Path(path).parts
    bad = []
    for name in sorted(imports(source)):
        top = name.lstrip(".").split(".")[0]
        if name == "importlib":
            bad.append("imports by name")
        elif parts[0] in ("plan", "routes"):
            if name.startswith("."):
                inside = (name.startswith("..") and top in PURE) or (name.startswith(".") and not name.startswith(".."))
                if not inside:
                    bad.append(name)
            elif top not in sys.stdlib_module_names:
                bad.append(name)
        elif parts[0] == "modules":
            if top not in sys.stdlib_module_names and not name.startswith(PREFIX):
                bad.append(name)
            if name == PREFIX + "cluster":
                bad.append(name)
        elif (top in ("kubernetes", "urllib3") and path not in TALKS_TO_KUBERNETES) or (top == "ansible" and path not in KNOWS_ANSIBLE):
            bad.append(name)
        elif top in ("httpx", "httpcore", "h2") and path not in MAKES_TRAFFIC:
            bad.append(name)
        elif path in ("model.py", "errors.py") and not (name in (".errors", ".model") or top in sys.stdlib_module_names):
            bad.append(name)
    return bad


def sources() -> list[tuple[str, Path]]:
    """Return every file that the rules are for."""
    found = [(str(path.relative_to(UTILS)), path) for path in UTILS.rglob("*.py")]
    return found + [(f"modules/{path.name}", path) for path in (PLUGINS / "modules").glob("*.py")]


@pytest.mark.parametrize(("path", "file"), sources(), ids=[path for path, _file in sources()])
def test_each_file_imports_only_what_its_layer_may(path: str, file: Path) -> None:
    assert offences(path, file.read_text()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("plan/rollout.py", "from ..cluster import connect"),
        ("plan/rollout.py", "import kubernetes"),
        ("routes/service.py", "from ansible.module_utils.basic import AnsibleModule"),
        ("waiting.py", "import kubernetes"),
        ("watching_traffic.py", "import httpx"),
        ("plan/load.py", "import httpx"),
        ("waiting.py", "from ansible.module_utils.basic import AnsibleModule"),
        ("routes/registry.py", "import importlib\nimportlib.import_module('x')"),
        ("modules/scale.py", "import kubernetes"),
        ("model.py", "from .plan import rollout"),
    ],
)
def test_the_rules_catch_an_offender(path: str, source: str) -> None:
    assert offences(path, source)
