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

    PROBE = r"""
options:
  probe:
    description:
      - How to ask the route, and to tell who has answered. With it the step ends when the data plane really does what was asked for,
        which is measured by requests and not assumed; without it, when the API server has accepted it.
      - At 0 and 100 percent the step waits for so many answers of one side in a row that the old share is ruled out but for a chance of
        0.1 percent; between, a sequential test decides, and is wrong in 1 percent of all cases.
      - Nothing is asked in check mode. Needs the Python package httpx.
    type: dict
    suboptions:
      url:
        description: The address of the route, as its users ask it.
        type: str
        required: true
      headers:
        description: Headers of the requests, for example C(Host).
        type: dict
      version_header:
        description: The header of an answer whose value tells stable from the other side.
        type: str
      version_field:
        description: The field of a JSON answer whose value does, as its path or as JMESPath.
        type: str
      stable:
        description: The value that stable answers with. The default is whatever is not the other side's.
        type: str
      canary:
        description: The value that the other side, the canary or the variant, answers with. The default is whatever is not stable's.
        type: str
      rate:
        description: Requests a second, at most.
        type: float
        default: 500
      timeout:
        description: Seconds for one request.
        type: float
        default: 2
      http2:
        description: Ask by HTTP/2.
        type: bool
        default: false
      validate_certs:
        description: Whether the certificate of an https address is verified.
        type: bool
        default: true
"""
