# SPDX-License-Identifier: GPL-3.0-or-later
"""The options and attributes that every step has."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation that the steps share."""

    DOCUMENTATION = r"""
options:
  api_key:
    description: Token used to authenticate with the API. Can also be set by E(K8S_AUTH_API_KEY).
    type: str
  ca_cert:
    description: Path to a CA certificate. Can also be set by E(K8S_AUTH_SSL_CA_CERT).
    type: path
    aliases: [ssl_ca_cert]
  client_cert:
    description: Path to a client certificate. Can also be set by E(K8S_AUTH_CERT_FILE).
    type: path
    aliases: [cert_file]
  client_key:
    description: Path to the key of the client certificate. Can also be set by E(K8S_AUTH_KEY_FILE).
    type: path
    aliases: [key_file]
  context:
    description: Name of a context in the kubeconfig. Can also be set by E(K8S_AUTH_CONTEXT).
    type: str
  expected_context:
    description:
      - Refuse to do anything unless the context in use has this name.
      - It protects from a release to the wrong cluster by a kubeconfig that somebody switched.
    type: str
  host:
    description: URL of the API server. Can also be set by E(K8S_AUTH_HOST).
    type: str
  impersonate_groups:
    description: Group to impersonate. Can also be set by E(K8S_AUTH_IMPERSONATE_GROUPS).
    type: list
    elements: str
  impersonate_user:
    description: User to impersonate. Can also be set by E(K8S_AUTH_IMPERSONATE_USER).
    type: str
  kubeconfig:
    description:
      - Path to a kubeconfig, or its content as a dictionary. Can also be set by E(K8S_AUTH_KUBECONFIG).
      - Without it, a pod's service account is used, then E(KUBECONFIG), then C(~/.kube/config).
    type: raw
  namespace:
    description: Namespace of the objects. The default is the context's namespace, and V(default) where it has none.
    type: str
  no_proxy:
    description: Comma-separated hosts that are reached without the proxy. Can also be set by E(K8S_AUTH_NO_PROXY).
    type: str
  password:
    description: Password of O(username), sent by HTTP basic authentication. Can also be set by E(K8S_AUTH_PASSWORD).
    type: str
  persist_config:
    description: Save refreshed tokens to the kubeconfig. Can also be set by E(K8S_AUTH_PERSIST_CONFIG).
    type: bool
  proxy:
    description: URL of an HTTP proxy. Can also be set by E(K8S_AUTH_PROXY).
    type: str
  proxy_headers:
    description: Headers for the proxy.
    type: dict
    suboptions:
      basic_auth:
        description: C(user:password) for basic authentication. Can also be set by E(K8S_AUTH_PROXY_HEADERS_BASIC_AUTH).
        type: str
      proxy_basic_auth:
        description: >-
          C(user:password) for the proxy's basic authentication.
          Can also be set by E(K8S_AUTH_PROXY_HEADERS_PROXY_BASIC_AUTH).
        type: str
      user_agent:
        description: The user agent. Can also be set by E(K8S_AUTH_PROXY_HEADERS_USER_AGENT).
        type: str
  retry_timeout:
    description:
      - For how many seconds a request is tried again while the API server is away, overloaded or answers 5xx.
      - V(0) tries once.
    type: float
    default: 10
  username:
    description: User name for HTTP basic authentication. Can also be set by E(K8S_AUTH_USERNAME).
    type: str
  validate_certs:
    description: Verify the API server's certificate. Can also be set by E(K8S_AUTH_VERIFY_SSL).
    type: bool
    aliases: [verify_ssl]
requirements:
  - kubernetes >= 24.2.0
"""

    ACTIONS = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and return a changed status prediction without modifying the target.
    support: full
    details: The write is sent with the server's own dry run, so refusals by admission and RBAC show.
  diff_mode:
    description: Returns what has changed, in the words of the domain.
    support: full
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
  action_group:
    description: Is part of the action group C(progressive.delivery.delivery), for C(module_defaults).
    support: full
    membership:
      - progressive.delivery.delivery
"""

    READS = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and return a changed status prediction without modifying the target.
    support: full
    details: This step writes nothing.
  diff_mode:
    description: Returns what has changed, in the words of the domain.
    support: none
    details: This step changes nothing.
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
  action_group:
    description: Is part of the action group C(progressive.delivery.delivery), for C(module_defaults).
    support: full
    membership:
      - progressive.delivery.delivery
"""

    TURNS = r"""
options:
  slice:
    description:
      - End after so many seconds at most, and return RV(resume) where the outcome is still open. V(0) waits to the end.
      - Seldom needed. Where the module runs on another host, Ansible's side of this step makes such calls by itself, to
        print how far it is in between, and returns what one long wait would have returned.
    type: float
    default: 0
    version_added: 0.2.0
  resume:
    description:
      - RV(resume) of the call before, as it is. The time that has passed counts, and what was seen is remembered.
    type: dict
    version_added: 0.2.0
"""
