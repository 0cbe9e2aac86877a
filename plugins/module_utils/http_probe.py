# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP probes: one GET to a URL, the commands that do one inside a container, and what an answer must be like."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .errors import InvalidRequest, Unavailable
from .model import Answer, Ran

JMESPATH_IMPORT_ERROR: str | None
try:
    import jmespath

    JMESPATH_IMPORT_ERROR = None
except ImportError:
    JMESPATH_IMPORT_ERROR = traceback.format_exc()

MOST_BODY = 1_000_000
NO_CLIENT = 97
_REFUSED = re.compile(r"not found|no such file|exec failed|cannot execute|permission denied", re.IGNORECASE)
_STATUS_LINE = re.compile(r"HTTP/\d(?:\.\d)? (\d{3})")

# wget's own -T is left alone: busybox 1.35 as Debian links it crashes on it.
# One exec finds the client and uses it. "$1" is the URL, "$2" the seconds, the rest headers as "Name: value".
SHELL = r"""
url=$1; seconds=$2; shift 2
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY all_proxy
n=$#
if command -v curl >/dev/null 2>&1; then
  while [ "$n" -gt 0 ]; do h=$1; shift; set -- "$@" -H "$h"; n=$((n - 1)); done
  exec curl -sS -i -k --max-time "$seconds" "$@" "$url"
elif command -v wget >/dev/null 2>&1; then
  while [ "$n" -gt 0 ]; do h=$1; shift; set -- "$@" --header "$h"; n=$((n - 1)); done
  case $url in https:*) set -- "$@" --no-check-certificate ;; esac
  if command -v timeout >/dev/null 2>&1; then exec timeout "$seconds" wget -S -O - "$@" "$url"; fi
  exec wget -S -O - "$@" "$url"
fi
exit 97
"""

PYTHON = (
    "import sys,ssl,http.client as c,urllib.parse as p\n"
    "u=p.urlsplit(sys.argv[1]);t=float(sys.argv[2]);s=u.scheme=='https'\n"
    "k=c.HTTPSConnection(u.netloc,timeout=t,context=ssl._create_unverified_context()) if s else c.HTTPConnection(u.netloc,timeout=t)\n"
    "k.request('GET',(u.path or '/')+('?'+u.query if u.query else ''),headers=dict(h.split(': ',1) for h in sys.argv[3:]))\n"
    "a=k.getresponse();print('HTTP/1.1',a.status);print();sys.stdout.flush();sys.stdout.buffer.write(a.read())"
)
NODE = (
    "const [u,t,...h]=process.argv.slice(1);"
    "const o={headers:Object.fromEntries(h.map(x=>x.split(/: (.*)/s))),timeout:t*1000,rejectUnauthorized:false};"
    "const q=require(u.startsWith('https')?'https':'http').get(u,o,a=>{let b='';a.on('data',d=>b+=d);"
    "a.on('end',()=>console.log('HTTP/1.1 '+a.statusCode+'\\n\\n'+b))});"
    "q.on('timeout',()=>q.destroy(new Error('timed out')));q.on('error',e=>{console.error(e.message);process.exit(1)})"
)


def commands(url: str, timeout: float, headers: Mapping[str, str]) -> list[list[str]]:
    """Return the commands that GET the URL, in the order in which they are tried."""
    seconds = str(max(1, int(timeout)))
    lines = [f"{key}: {value}" for key, value in headers.items()]
    curl = ["curl", "-sS", "-i", "-k", "--max-time", seconds, *(part for line in lines for part in ("-H", line)), url]
    unchecked = ["--no-check-certificate"] if url.startswith("https:") else []
    wget = ["wget", "-S", "-O", "-", *unchecked, *(part for line in lines for part in ("--header", line)), url]
    return [
        ["sh", "-c", SHELL, "sh", url, seconds, *lines],
        curl,
        wget,
        ["python3", "-c", PYTHON, url, seconds, *lines],
        ["node", "-e", NODE, url, seconds, *lines],
    ]


def is_missing(ran: Ran) -> bool:
    """Return whether the command was not there to be run (the shell's 97, or the container runtime's own refusal)."""
    if ran.code == NO_CLIENT:
        return True
    # 255 is also what a stream that broke off counts as: only a refusal to start the command says that it is not there.
    refused = ran.code in (126, 127, 128) or (ran.code == 255 and _REFUSED.search(ran.stderr) is not None)
    return refused and not ran.stdout and not _STATUS_LINE.search(ran.stderr)


def parse_exec(ran: Ran) -> Answer:
    """Return the answer that a client in the container printed; raise Unavailable where it got none.

    curl and the others print the status line before the body; wget prints it to stderr, and no body for an error.
    """
    if ran.stdout.startswith("HTTP/"):
        head, _sep, body = ran.stdout.replace("\r\n", "\n").partition("\n\n")
        while head.startswith("HTTP/") and re.match(r"HTTP/\S+ 1\d\d", head):
            head, _sep, body = body.partition("\n\n")
        found = _STATUS_LINE.match(head)
        lines = (line.partition(":") for line in head.splitlines()[1:])
        return Answer(int(found.group(1)) if found else 0, body, {key.lower(): value.strip() for key, _colon, value in lines})
    statuses = _STATUS_LINE.findall(ran.stderr)
    if statuses:
        # The first: a redirect is an answer, although wget goes on to follow it.
        return Answer(int(statuses[0]), ran.stdout)
    said = (ran.stderr.strip() or ran.stdout.strip() or f"exit code {ran.code}").splitlines()[-1]
    raise Unavailable(f"no answer: {said}")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect as the answer that it is."""

    def redirect_request(self, *_args: Any, **_keywords: Any) -> None:
        """Follow nothing."""


def get_url(url: str, headers: Mapping[str, str], timeout: float, validate_certs: bool = True, body: bytes | None = None) -> Answer:
    """GET a URL from here, or POST a body to it, redirects not followed; raise Unavailable where no answer came."""
    context = ssl.create_default_context()
    if not validate_certs:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=context))
    try:
        request = urllib.request.Request(url, data=body, headers=dict(headers))
        with opener.open(request, timeout=timeout) as response:
            return Answer(response.status, response.read(MOST_BODY).decode("utf-8", "replace"), dict(response.headers))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read(MOST_BODY).decode("utf-8", "replace"), dict(error.headers))
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unavailable(f"no answer from {url}: {getattr(error, 'reason', None) or error or type(error).__name__}") from error


def check_expressions(expected: Mapping[str, Any]) -> None:
    """Raise InvalidRequest for an expression that is not JMESPath, before any request is made."""
    for expression in expected:
        compile_expression("json", expression)


def compile_expression(option: str, expression: str) -> Callable[[Any], Any]:
    """Return what searches a document by a JMESPath expression, None where it finds nothing; raise InvalidRequest for another."""
    if JMESPATH_IMPORT_ERROR:
        raise InvalidRequest(f"{option} needs the Python package jmespath; install it beside kubernetes", reason="MissingLibrary")
    try:
        compiled = jmespath.compile(expression)
    except jmespath.exceptions.JMESPathError as error:
        raise InvalidRequest(f'{option}: "{expression}" is not JMESPath: {str(error).splitlines()[0]}') from None

    def search(document: Any) -> Any:
        try:
            return compiled.search(document)
        except jmespath.exceptions.JMESPathError:
            return None

    return search


def mismatch(answer: Answer, status: Sequence[int], text: str | None, expected: Mapping[str, Any]) -> str:
    """Return in one sentence how the answer differs from what is expected, or an empty string."""
    if answer.status not in status:
        wanted = " or ".join(str(code) for code in status)
        return f"status {answer.status} instead of {wanted}"
    if text is not None and text not in answer.body:
        return f'the text "{text}" is not in the answer'
    if expected:
        try:
            document = json.loads(answer.body)
        except ValueError:
            return "the answer is not JSON"
        for expression, value in expected.items():
            try:
                found = jmespath.search(expression, document)
            except jmespath.exceptions.JMESPathError as error:
                return f"{expression} cannot be evaluated on the answer: {str(error).splitlines()[0]}"
            if found != value and not _is_same(found, value):
                return f"{expression} is {json.dumps(found)} instead of {json.dumps(value)}"
    return ""


def _is_same(found: Any, wanted: Any) -> bool:
    """Return whether two scalars are the same as text: YAML reads 2.0 as a number where the application says "2.0"."""
    if not all(isinstance(value, (bool, int, float, str)) for value in (found, wanted)):
        return False
    if isinstance(found, bool) or isinstance(wanted, bool):
        return str(found).lower() == str(wanted).lower()
    return str(found) == str(wanted)
