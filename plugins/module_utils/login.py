# SPDX-License-Identifier: GPL-3.0-or-later
"""From options, a kubeconfig or a pod's service account to a cluster, in the order and with the words of kubernetes.core."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from .cluster import KubernetesCluster, reason_of
from .errors import InvalidRequest

try:
    import urllib3
    import yaml
    from kubernetes import client as k8s_client
    from kubernetes import config as k8s_config
    from kubernetes.config import kube_config
except ImportError:
    # cluster.KUBERNETES_IMPORT_ERROR tells.
    pass


FILES = ("ssl_ca_cert", "cert_file", "key_file")


class KeyFiles:
    """The files that hold the keys of a login: TLS takes them from files only.

    The client writes what a kubeconfig carries inline to files that it removes at the end of the process; a worker of
    Ansible ends without that. So they are moved to a folder of the login, which goes with it.
    """

    def __init__(self, configuration: Any) -> None:
        self._folder = ""
        for attribute, path in self._take(configuration).items():
            self._folder = self._folder or tempfile.mkdtemp(prefix="delivery-login-")
            moved = os.path.join(self._folder, attribute)
            os.rename(path, moved)
            setattr(configuration, attribute, moved)
        self._guard(configuration)

    @staticmethod
    def _take(configuration: Any) -> dict[str, str]:
        """Return the files that the client has written for this login, and make it forget them."""
        written = getattr(kube_config, "_temp_files", {})
        found = {}
        for attribute in FILES:
            path = getattr(configuration, attribute, None)
            content = next((content for content, name in written.items() if name == path), None)
            if content is not None:
                found[attribute] = written.pop(content)
        return found

    def _guard(self, configuration: Any) -> None:
        """Let a refresh of the token change the token alone: the client's own sets everything as the kubeconfig has it."""
        refresh = getattr(configuration, "refresh_api_key_hook", None)
        if refresh is None:
            return

        def only_the_token(target: Any) -> None:
            kept = {name: getattr(target, name) for name in (*FILES, "host", "verify_ssl")}
            refresh(target)
            for path in self._take(target).values():
                os.remove(path)
            for name, value in kept.items():
                setattr(target, name, value)
            target.refresh_api_key_hook = only_the_token

        configuration.refresh_api_key_hook = only_the_token

    def remove(self) -> None:
        """Remove them."""
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


def connect(options: Mapping[str, Any], env: Mapping[str, str] | None = None) -> KubernetesCluster:
    """Return the cluster that the auth options name; raise InvalidRequest where they name none.

    The order is kubernetes.core's: enough options to log in; a kubeconfig or context; the pod's service account; the
    default kubeconfig.
    """
    env = os.environ if env is None else env
    configuration = k8s_client.Configuration()
    namespace, context = None, None
    complete = options.get("host") and (
        options.get("api_key")
        or (options.get("username") and options.get("password"))
        or (options.get("client_cert") and options.get("client_key"))
    )
    if not complete:
        named = options.get("kubeconfig") or options.get("context")
        if not named and _in_cluster(env):
            k8s_config.load_incluster_config(client_configuration=configuration)
            with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace", encoding="utf-8") as handle:
                namespace = handle.read().strip()
        else:
            namespace, context = _load_kubeconfig(options, env, configuration)
    keys = KeyFiles(configuration)
    try:
        return _connected(options, configuration, namespace, context, keys)
    except InvalidRequest:
        keys.remove()
        raise
    except Exception as error:  # the client raises what its libraries raise: for a proxy, a certificate, an address
        keys.remove()
        raise InvalidRequest(f"the login cannot be used: {reason_of(error)}; check host, proxy and the certificates") from None


def _connected(
    options: Mapping[str, Any], configuration: Any, namespace: str | None, context: str | None, keys: KeyFiles
) -> KubernetesCluster:
    """Return the cluster of a configuration; raise InvalidRequest where it is not the one that is expected."""
    _apply(options, configuration)
    if options.get("expected_context") and context != options["expected_context"]:
        now = f'"{context}"' if context else "no context at all"
        raise InvalidRequest(
            f'this is the wrong cluster: expected_context is "{options["expected_context"]}" but the credentials use {now};'
            " set context, or correct expected_context"
        )
    api = k8s_client.ApiClient(configuration)
    if options.get("impersonate_user"):
        api.default_headers["Impersonate-User"] = options["impersonate_user"]
    if not configuration.verify_ssl:
        warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
    patience, groups = float(options.get("retry_timeout", 10)), options.get("impersonate_groups") or ()
    return KubernetesCluster(api, namespace or "default", context, patience, groups, keys.remove)


def _in_cluster(env: Mapping[str, str]) -> bool:
    """Return whether this process runs in a pod with a service account."""
    return bool(env.get("KUBERNETES_SERVICE_HOST")) and os.path.exists("/var/run/secrets/kubernetes.io/serviceaccount/token")


def _load_kubeconfig(options: Mapping[str, Any], env: Mapping[str, str], configuration: Any) -> tuple[str | None, str]:
    """Load the kubeconfig into ``configuration``; return the context's namespace and its name."""
    source = options.get("kubeconfig")
    wanted = options.get("context") or None
    base = ""
    try:
        if isinstance(source, Mapping):
            loaded: Any = dict(source)
            where = "the given kubeconfig"
        else:
            paths = os.path.expanduser(str(source or env.get("KUBECONFIG") or "~/.kube/config"))
            where = f"kubeconfig {paths}"
            if not any(os.path.exists(path) for path in paths.split(os.pathsep)):
                raise InvalidRequest(f"{where} does not exist; set kubeconfig, K8S_AUTH_KUBECONFIG or KUBECONFIG, or host and api_key")
            loaded = None
            if os.pathsep not in paths and not options.get("persist_config"):
                loaded, base = _parse(paths), os.path.dirname(os.path.abspath(paths))
                if not isinstance(loaded, Mapping):
                    raise InvalidRequest(f"{where} is not a kubeconfig: it does not hold a mapping with clusters, users and contexts")
        contexts, active = _contexts(loaded, "" if loaded is not None else paths)
        chosen = next((entry for entry in contexts if entry["name"] == (wanted or active["name"])), None)
        if chosen is None and not wanted and not active.get("name"):
            raise InvalidRequest(f"{where} has no current-context; set context to one of: {', '.join(_names(contexts)) or 'none'}")
        if chosen is None:
            names = ", ".join(_names(contexts))
            raise InvalidRequest(f'{where} has no context "{wanted or active["name"]}"; it has: {names}')
        if loaded is not None:
            kube_config.KubeConfigLoader(loaded, active_context=chosen["name"], config_base_path=base).load_and_set(configuration)
        else:
            k8s_config.load_kube_config(
                paths, context=wanted, client_configuration=configuration, persist_config=bool(options.get("persist_config"))
            )
    except InvalidRequest:
        raise
    except Exception as error:  # the loader raises ConfigException, YAML errors, KeyError and more
        raise InvalidRequest(f"{where} cannot be used: {reason_of(error)}") from None
    return (chosen.get("context") or {}).get("namespace"), chosen["name"]


def _parse(path: str) -> Any:
    """Return the content of a kubeconfig, by the parser in C where that is built in: it takes a third of the time."""
    with open(path, encoding="utf-8") as handle:
        return yaml.load(handle, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _contexts(loaded: Any, paths: str | None) -> tuple[Sequence[Any], Any]:
    """Return the contexts of a kubeconfig and the active one."""
    if loaded is None:
        return k8s_config.list_kube_config_contexts(paths)
    contexts = loaded.get("contexts") or []
    current = loaded.get("current-context")
    active = next((entry for entry in contexts if entry.get("name") == current), {"name": current})
    return contexts, active


def _names(contexts: Sequence[Any]) -> list[str]:
    """Return the names of contexts, sorted."""
    return sorted(str(entry["name"]) for entry in contexts)


def _apply(options: Mapping[str, Any], configuration: Any) -> None:
    """Put what the options say over what the kubeconfig says."""
    for option, attribute in (
        ("host", "host"),
        ("username", "username"),
        ("password", "password"),
        ("ca_cert", "ssl_ca_cert"),
        ("client_cert", "cert_file"),
        ("client_key", "key_file"),
        ("proxy", "proxy"),
        ("no_proxy", "no_proxy"),
    ):
        if options.get(option) is not None:
            setattr(configuration, attribute, options[option])
    if options.get("validate_certs") is not None:
        configuration.verify_ssl = options["validate_certs"]
    headers = options.get("proxy_headers") or {}
    if headers:
        configuration.proxy_headers = urllib3.make_headers(
            proxy_basic_auth=headers.get("proxy_basic_auth"),
            basic_auth=headers.get("basic_auth"),
            user_agent=headers.get("user_agent"),
        )
    if options.get("api_key"):
        configuration.api_key = {"authorization": "Bearer " + options["api_key"]}
        configuration.api_key_prefix = {}
        configuration.refresh_api_key_hook = None
    elif options.get("username") and options.get("password"):
        basic = urllib3.make_headers(basic_auth=f"{options['username']}:{options['password']}")
        configuration.api_key = {"authorization": basic["authorization"]}
        configuration.refresh_api_key_hook = None
