# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that knows Ansible: options in, errors mapped, results shaped - for both doors of a step.

A step's module gives ``OPTIONS`` (its part of the argument spec) and ``execute(options, cluster, check, progress)``.
``run_module`` is the ordinary door; ``run_in_process`` is the one of ``plugins/action/step.py``.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.module_utils.errors import UnsupportedError

from .cluster import KUBERNETES_IMPORT_ERROR
from .errors import Conflict, DeliveryError, InvalidRequest, MissingLibrary
from .login import connect
from .model import Change, Cluster, Manifest, Ref, Result
from .plan.masking import masked_text

Progress = Callable[..., None]
"""Takes a line of progress, and as a second argument what in it is news, where the line says more than that."""
Execute = Callable[..., Result]

SECRET_KEYS = (
    "token",
    "password",
    "client-key-data",
    "client-certificate-data",
    "client-secret",
    "access-token",
    "refresh-token",
    "id-token",
)
SECRET_NAME = re.compile(r"token|secret|passw|credential|key", re.IGNORECASE)
# Names of request headers whose values are shown nowhere.
SECRET_HEADER = re.compile(r"auth|cookie|credential|key|passw|secret|session|signature|token", re.IGNORECASE)
LONG_PART = 20
MOST_PLANS = 10


def _option(variable: str, **spec: Any) -> dict[str, Any]:
    """Return an auth option that falls back to kubernetes.core's environment variable."""
    return {**spec, "fallback": (env_fallback, [f"K8S_AUTH_{variable}"])}


COMMON_OPTIONS: dict[str, dict[str, Any]] = {
    "api_key": _option("API_KEY", type="str", no_log=True),
    "ca_cert": _option("SSL_CA_CERT", type="path", aliases=["ssl_ca_cert"]),
    "client_cert": _option("CERT_FILE", type="path", aliases=["cert_file"]),
    "client_key": _option("KEY_FILE", type="path", aliases=["key_file"], no_log=False),
    "context": _option("CONTEXT", type="str"),
    "expected_context": {"type": "str"},
    "host": _option("HOST", type="str"),
    "impersonate_groups": _option("IMPERSONATE_GROUPS", type="list", elements="str"),
    "impersonate_user": _option("IMPERSONATE_USER", type="str"),
    "kubeconfig": _option("KUBECONFIG", type="raw"),
    "namespace": {"type": "str"},
    "no_proxy": _option("NO_PROXY", type="str"),
    "password": _option("PASSWORD", type="str", no_log=True),
    "persist_config": _option("PERSIST_CONFIG", type="bool"),
    "proxy": _option("PROXY", type="str"),
    "proxy_headers": {
        "type": "dict",
        "options": {
            "basic_auth": _option("PROXY_HEADERS_BASIC_AUTH", type="str", no_log=True),
            "proxy_basic_auth": _option("PROXY_HEADERS_PROXY_BASIC_AUTH", type="str", no_log=True),
            "user_agent": _option("PROXY_HEADERS_USER_AGENT", type="str"),
        },
    },
    "retry_timeout": {"type": "float", "default": 10},
    "username": _option("USERNAME", type="str"),
    "validate_certs": _option("VERIFY_SSL", type="bool", aliases=["verify_ssl"]),
}


def argument_spec(options: Mapping[str, Any], common: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a step's whole argument spec: its own options, and those that it has in common with its like (by default, a cluster's)."""
    return {**(COMMON_OPTIONS if common is None else common), **options}


def quiet(_line: str, _news: object = None) -> None:
    """Report no progress."""


class QuietModule(AnsibleModule):
    """A module that does not write its arguments to the system's log: a kubeconfig that is given as a dict holds secrets."""

    def _log_invocation(self) -> None:
        """Log nothing."""


def run_module(
    execute: Execute,
    options: Mapping[str, Any],
    common: Mapping[str, Any] | None = None,
    connector: Callable[[Mapping[str, Any]], Any] = connect,
) -> None:
    """Run a step as an ordinary module, and exit.

    A step that works on something else than a cluster says by ``connector`` on what, and by ``common`` by which options.
    """
    module = QuietModule(argument_spec=argument_spec(options, common), supports_check_mode=True)
    module.no_log_values.update(kubeconfig_secrets(module.params.get("kubeconfig")) | header_secrets(module.params))
    outcome = perform(execute, module.params, module.check_mode, connector=connector)
    if outcome.pop("failed", False):
        module.fail_json(**outcome)
    module.exit_json(**outcome)


def run_in_process(
    execute: Execute,
    options: Mapping[str, Any],
    arguments: Mapping[str, Any],
    check: bool,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Validate the arguments with the module's own spec, run the step here, and return what the module would."""
    spec = argument_spec(options)
    validation = ArgumentSpecValidator(spec).validate(dict(arguments))
    if validation.error_messages:
        unknown = "Unsupported parameters: " if isinstance(validation.errors[0], UnsupportedError) else ""
        return {"failed": True, "changed": False, "msg": unknown + validation.errors.msg, "reason": "InvalidRequest"}
    parameters = validation.validated_parameters
    secrets = set(validation._no_log_values) | kubeconfig_secrets(parameters.get("kubeconfig")) | header_secrets(parameters)
    outcome = perform(execute, parameters, check, progress)
    outcome["invocation"] = {"module_args": _censored(parameters, spec)}
    return remove_values(outcome, secrets)


def perform(
    execute: Execute,
    options: Mapping[str, Any],
    check: bool,
    progress: Progress = quiet,
    connector: Callable[[Mapping[str, Any]], Any] = connect,
) -> dict[str, Any]:
    """Connect, run the step, and return its outcome as Ansible has it; ``failed`` with one sentence on an error.

    ``connector`` returns what the step works on: a Cluster, or anything else that can be closed.
    """
    if KUBERNETES_IMPORT_ERROR and connector is connect:
        return {"failed": True, "changed": False, "msg": missing_required_lib("kubernetes"), "exception": KUBERNETES_IMPORT_ERROR}
    started = time.monotonic()
    cluster = None
    try:
        cluster = connector(options)
        _check_numbers(options)
        chosen = dict(options)
        if hasattr(cluster, "default_namespace"):
            chosen["namespace"] = options.get("namespace") or cluster.default_namespace
        result = execute(chosen, cluster, check, progress)
    except DeliveryError as error:
        said = missing_required_lib(error.library) if isinstance(error, MissingLibrary) else error.message
        outcome: dict[str, Any] = {"failed": True, "changed": False, "msg": said, "reason": error.reason}
        outcome.update({key: value for key, value in error.details.items() if key != "unsure"})
    else:
        outcome = _shape(result)
    finally:
        if cluster is not None:
            cluster.close()
    outcome["duration"] = round(time.monotonic() - started, 3)
    return outcome


def _check_numbers(options: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for an option that is a float and no number: what compares with it never ends."""
    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidRequest(f"{name} must be a number, got {value}")


def settle(
    cluster: Cluster,
    ref: Ref,
    plan: Callable[[Manifest], Change],
    check: bool,
    observed: Manifest | None = None,
) -> tuple[Change, Manifest]:
    """Read, plan and write until no other writer came between; return the change and the object after it.

    ``observed`` saves the first read where the caller has just done it.
    """
    sent: Change | None = None
    for _attempt in range(MOST_PLANS):
        manifest = observed if observed is not None else cluster.get(ref)
        observed = None
        change = plan(manifest)
        if not change.changed:
            # The answer to our own write was lost: the second look finds it done, and by us.
            return (sent or change), manifest
        try:
            return change, cluster.patch(ref, change.patch, change.patch_type, dry_run=check)
        except Conflict as error:
            sent = change if error.details.get("unsure") else sent
    raise Conflict(f"{ref} was changed by others {MOST_PLANS} times while this step tried to; see who else writes to it")


def kubeconfig_secrets(kubeconfig: Any) -> set[str]:
    """Return the secret values in a kubeconfig that is given as a dict."""
    found: set[str] = set()
    if isinstance(kubeconfig, Mapping):
        if set(kubeconfig) == {"name", "value"} and SECRET_NAME.search(str(kubeconfig["name"])) and len(str(kubeconfig["value"])) > 3:
            # A variable of an exec plugin. What is shorter would hide words and numbers of the results, and no secret.
            found.add(str(kubeconfig["value"]))
        for key, value in kubeconfig.items():
            if key in SECRET_KEYS and isinstance(value, str) and value:
                found.add(value)
            found |= kubeconfig_secrets(value)
    elif isinstance(kubeconfig, (list, tuple)):
        for value in kubeconfig:
            found |= kubeconfig_secrets(value)
    return found


def header_secrets(options: Any) -> set[str]:
    """Return the secret values of request headers, and of what a webhook carries, wherever they are in the options.

    Of ``headers`` they are the values: whole, and without the scheme before; they may be further down (Istio's ``request.add``). Of
    ``webhooks`` they are those in ``metadata``, a command (``cmd``) among them, and what is a secret in their addresses.
    """
    found: set[str] = set()
    if isinstance(options, Mapping):
        for name, value in options.items():
            if name == "headers" and isinstance(value, Mapping):
                found |= _values_of_headers(value)
            else:
                found |= header_secrets(value)
            if name == "webhooks" and isinstance(value, (list, tuple)):
                for hook in value:
                    found |= _hook_secrets(hook) if isinstance(hook, Mapping) else set()
    elif isinstance(options, (list, tuple)):
        for value in options:
            found |= header_secrets(value)
    return found


def _values_of_headers(headers: Mapping[str, Any]) -> set[str]:
    """Return the values of headers that are secret by their name."""
    found: set[str] = set()
    for header, value in headers.items():
        if isinstance(value, Mapping):
            found |= _values_of_headers(value)
            continue
        texts = [str(text) for text in (value if isinstance(value, (list, tuple)) else [value])]
        secrets = texts if SECRET_HEADER.search(str(header)) else []
        # What is shorter would hide words and numbers of the results, and no secret.
        found.update(part for text in secrets for part in (text, text.rpartition(" ")[2]) if len(part) > 3)
    return found


def _hook_secrets(hook: Mapping[str, Any]) -> set[str]:
    """Return what is secret in a webhook: what it carries under such a name, or with a secret in its text, and parts of its address."""
    found: set[str] = set()
    metadata = hook.get("metadata")
    for key, value in metadata.items() if isinstance(metadata, Mapping) else ():
        text = str(value)
        if (key == "cmd" and " " in text) or SECRET_HEADER.search(str(key)) or masked_text(text) != text:
            found.add(text)
    url = str(hook.get("url") or "")
    user, _at, _host = url.partition("://")[2].partition("/")[0].rpartition("@")
    path, _mark, query = url.partition("://")[2].partition("/")[2].partition("?")
    found.update((user, user.partition(":")[2], query))
    # A part of a path that is this long is what others must not know: https://hooks.example.com/services/T0/B0/<key>.
    found.update(part for part in path.split("/") if len(part) >= LONG_PART)
    return {text for text in found if len(text) > 3}


def _shape(result: Result) -> dict[str, Any]:
    """Return a result with the keys that every step has."""
    outcome: dict[str, Any] = {"changed": result.changed, "actions": list(result.actions)}
    before, after = dict(result.before or {}), dict(result.after or {})
    outcome.update(before=before, after=after)
    if result.before is not None and result.after is not None:
        outcome["diff"] = {"before": before, "after": after}
    outcome.update(result.extra)
    return outcome


def _censored(parameters: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters as a module's invocation shows them."""
    hidden = {name for name, option in spec.items() if option.get("no_log")} | {"proxy_headers"}
    shown = {key: "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER" if key in hidden and value else value for key, value in parameters.items()}
    if isinstance(shown.get("kubeconfig"), Mapping):
        shown["kubeconfig"] = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
    return shown
