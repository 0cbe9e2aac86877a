# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that say which routes a step is about."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation that the steps for routes share."""

    DOCUMENTATION = r"""
options:
  name:
    description:
      - Name of the route - the HTTPRoute for V(gateway_api), the main Ingress for V(ingress_nginx), the VirtualService for
        V(istio), the IngressRoute for V(traefik).
      - Needed unless every entry of O(routes) has one.
    type: str
  rule:
    description:
      - The rule that is meant, by its name or its number from 0, where a route has several that lead to the stable side.
      - The default is the only one that does.
    type: str
  rule_host:
    description: The host of the rules that are meant, as the route spells it. The default is any.
    type: str
  rule_path:
    description: The path of the rules that are meant, as the route spells it. The default is any.
    type: str
  routes:
    description:
      - Several routes of one application that move together. All are checked before the first one is written, and where one
        cannot be moved the others are taken back.
      - What an entry leaves out is what the option of the same name says beside it.
    type: list
    elements: dict
    suboptions:
      provider:
        description: What does the routing.
        type: str
      name:
        description: Name of the route.
        type: str
      rule:
        description: The rule that is meant, by its name or its number from 0.
        type: str
      rule_host:
        description: The host of the rules that are meant.
        type: str
      rule_path:
        description: The path of the rules that are meant.
        type: str
"""
