"""What `make` does with the stack beside calling `docker compose`.

It makes the settings, and asks the web server for things, through the proxy and with the password. It runs on the
machine that has Docker, with nothing but Python.
"""

import base64
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SETTINGS = FOLDER / "stack.env"
LOCATION = "bcw_assets"
REPOSITORY = {"repositoryLocationName": LOCATION, "repositoryName": "__repository__"}
PROJECT = os.environ.get("COMPOSE_PROJECT_NAME", "bcw-assets")
WAITS = (1, 2, 4, 8, 16)  # seconds
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the password goes to no proxy of the network

TEMPLATE = """\
# Settings of the stack, made by `make up`. Whoever reads this file may do everything: keep it, and keep it to yourself.
BCW_USER=bcw
BCW_PASSWORD={password}
BCW_PASSWORD_HASH='{hash}'
POSTGRES_PASSWORD={postgres}
AWS_ACCESS_KEY_ID={key}
AWS_SECRET_ACCESS_KEY={secret}

# What is set below holds after the next `make up`.
# BCW_BIND=127.0.0.1
# BCW_PORT=8080
# BCW_SITE=bcw.example.org
# BCW_UI_URL=https://bcw.example.org
# BCW_NOTIFY_URLS=
# BCW_SOURCE=auto
# BCW_SCHEDULE_CRON="0 6 * * 1"
# BCW_SCHEDULE_TIMEZONE=UTC
# COMPOSE_PROFILES=monitoring
"""


class Refused(Exception):
    """Something that a person has to see to; the text says what."""


class NoAnswer(Refused):
    """What may be otherwise in a moment, when something that was restarted is back."""


def settings() -> None:
    """Write the settings with random passwords, unless they are there."""
    if SETTINGS.exists():
        return
    if _read_output("docker", "volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}"):
        raise Refused(
            f"{SETTINGS} is missing, but not the data of an earlier stack, which only the passwords in it open. Put it "
            f"back, or remove that data: make clean"
        )
    compose = (FOLDER.parent / "docker-compose.yml").read_text()
    caddy = next(line.split()[1] for line in compose.splitlines() if line.strip().startswith("image: caddy:"))
    hashing = ("docker", "run", "--rm", "--interactive", caddy, "caddy", "hash-password", "--bcrypt-cost", "10")
    password = secrets.token_urlsafe(24)
    text = TEMPLATE.format(
        password=password,
        hash=_read_output(*hashing, text=f"{password}\n"),
        postgres=secrets.token_urlsafe(24),
        key=secrets.token_hex(10),
        secret=secrets.token_urlsafe(30),
    )
    with open(os.open(SETTINGS, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    print(f"Made {SETTINGS}, with random passwords")


def address() -> None:
    """Say where the stack is, and how one gets in."""
    print(f"{_find_address()} is open to user {_read_settings()['BCW_USER']} with the BCW_PASSWORD of {SETTINGS}")


def run() -> None:
    """Start the refresh, print what it does, and fail if it fails; what crashed and is tried again is followed, too."""
    launch = _ask(
        "mutation ($params: ExecutionParams!)",
        "launchRun(executionParams: $params)",
        "... on LaunchRunSuccess { run { runId } }",
        params={"selector": REPOSITORY | {"jobName": "refresh_job"}, "runConfigData": {}},
    )
    run_id = launch["run"]["runId"]
    status, is_retried = _follow(run_id)
    while is_retried:
        run_id = _find_retry(run_id)
        status, is_retried = _follow(run_id)
    if status != "SUCCESS":
        raise Refused(f"The refresh ended as {status}")


def pause() -> None:
    """Stop every schedule and sensor."""
    for kind, automation in _list_automations():
        verb = {"Schedule": "stopRunningSchedule", "Sensor": "stopSensor"}[kind]
        _ask("mutation ($id: String!)", f"{verb}(id: $id)", id=automation["state"]["id"])
        print(f"{automation['name']} is paused")


def unpause() -> None:
    """Start every schedule and sensor."""
    for kind, automation in _list_automations():
        field = kind.lower()
        _ask(
            f"mutation ($it: {kind}Selector!)",
            f"start{kind}({field}Selector: $it)",
            it=REPOSITORY | {f"{field}Name": automation["name"]},
        )
        print(f"{automation['name']} runs")


def reload() -> None:
    """Load the code again, with what is installed in its container."""
    answer = _ask(
        "mutation ($name: String!)",
        "reloadRepositoryLocation(repositoryLocationName: $name)",
        "... on WorkspaceLocationEntry { locationOrLoadError { __typename ... on PythonError { message } } }",
        name=LOCATION,
    )["locationOrLoadError"]
    if answer["__typename"] != "RepositoryLocation":
        raise Refused(f"The code cannot be loaded: {answer['message']}")
    print("The code is loaded")


def _follow(run_id: str) -> tuple[str, bool]:
    """Print what a run does until it has ended; return its status, and whether it will be tried again."""
    print(f"Run {_find_address()}/runs/{run_id}", flush=True)
    cursor = None
    while True:
        answer = _ask(
            "query ($run: ID!, $cursor: String)",
            "runOrError(runId: $run)",
            """... on Run { status tags { key value } eventConnection(afterCursor: $cursor) { cursor events {
                 __typename
                 ... on MessageEvent { message stepKey }
                 ... on MaterializationEvent { metadataEntries { label ... on TextMetadataEntry { text } } }
                 ... on ExecutionStepFailureEvent { error { message } failureMetadata { description } }
                 ... on RunFailureEvent { error { message } } } } }""",
            run=run_id,
            cursor=cursor,
        )
        for line in filter(None, map(_describe, answer["eventConnection"]["events"])):
            print(line, flush=True)
        cursor = answer["eventConnection"]["cursor"]
        if answer["status"] in ("SUCCESS", "FAILURE", "CANCELED"):
            return answer["status"], {"key": "dagster/will_retry", "value": "true"} in answer["tags"]
        time.sleep(1)


def _describe(event: dict[str, Any]) -> str | None:
    """Return the line that says what happened, if it is worth one."""
    kind = event["__typename"]
    if kind == "ExecutionStepSuccessEvent":
        return str(event["message"])
    if kind == "MaterializationEvent" and event["stepKey"] == "release":
        facts = {entry["label"]: entry.get("text") for entry in event["metadataEntries"]}
        return f"Release {facts['release']}: {facts['result']}"
    if kind in ("ExecutionStepFailureEvent", "RunFailureEvent"):
        reason = (event.get("failureMetadata") or {}).get("description") or (event.get("error") or {}).get("message")
        return f"{event['stepKey'] or 'The run'}: {reason or event['message']}"
    return None


def _find_retry(run_id: str) -> str:
    for _ in range(120):
        runs = _ask(
            "query ($tag: ExecutionTag!)",
            "runsOrError(filter: {tags: [$tag]})",
            "... on Runs { results { runId } }",
            tag={"key": "dagster/parent_run_id", "value": run_id},
        )["results"]
        if runs:
            return str(runs[0]["runId"])
        time.sleep(1)
    raise Refused(f"Run {run_id} crashed, and was not started again within two minutes; look at: make ps logs")


def _list_automations() -> list[tuple[str, dict[str, Any]]]:
    """Return every schedule and sensor, and which of the two it is."""
    repository = _ask(
        "query ($it: RepositorySelector!)",
        "repositoryOrError(repositorySelector: $it)",
        """... on Repository { schedules { name state: scheduleState { id } }
                               sensors { name state: sensorState { id } } }""",
        it=REPOSITORY,
    )
    return [(kind, entry) for kind in ("Schedule", "Sensor") for entry in repository[f"{kind.lower()}s"]]


def _ask(operation: str, field: str, selection: str = "", **variables: Any) -> Any:
    """Return what the web server answers through the proxy; a question, unlike a change, is asked again if need be."""
    query = f"{operation} {{ answer: {field} {{ __typename ... on Error {{ message }} {selection} }} }}"
    for wait in WAITS if operation.startswith("query") else ():
        try:
            return _ask_once(query, variables)
        except NoAnswer:
            time.sleep(wait)
    return _ask_once(query, variables)


def _ask_once(query: str, variables: dict[str, Any]) -> Any:
    values, place = _read_settings(), _find_address()
    login = base64.b64encode(f"{values['BCW_USER']}:{values['BCW_PASSWORD']}".encode()).decode()
    request = urllib.request.Request(
        f"{place}/graphql",
        json.dumps({"query": query, "variables": variables}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {login}"},
    )
    try:
        with DIRECT.open(request, timeout=60) as reply:
            document = json.load(reply)
    except (OSError, ValueError) as error:  # the second: a reply that breaks off
        if isinstance(error, urllib.error.HTTPError) and error.code == 401:
            text = f"{place} refuses the BCW_PASSWORD of {SETTINGS}; put it right, or after a change: make up"
            raise Refused(text) from error
        raise NoAnswer(f"{place} does not answer as it should ({error}). Is the stack up? make ps, make up") from error
    answer = (document.get("data") or {}).get("answer") or {"message": f"{document.get('errors')}"}
    if "message" in answer:
        raise NoAnswer(answer["message"])
    return answer


def _find_address() -> str:
    values = _read_settings()
    if site := values.get("BCW_SITE"):
        return f"https://{site}"
    host = values.get("BCW_BIND", "127.0.0.1").replace("0.0.0.0", "127.0.0.1")
    return f"http://{host}:{values.get('BCW_PORT', '8080')}"


def _read_settings() -> dict[str, str]:
    if not SETTINGS.exists():
        raise Refused(f"{SETTINGS} is not there, so no stack was started here; start it: make up")
    lines = (line.partition("=") for line in SETTINGS.read_text().splitlines() if not line.startswith("#"))
    return {name: value.strip().strip("'\"") for name, _, value in lines if value}


def _read_output(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout.strip()


VERBS = {verb.__name__: verb for verb in (settings, address, run, pause, unpause, reload)}

if __name__ == "__main__":
    try:
        VERBS[sys.argv[1]]()
    except Refused as refused:
        sys.exit(f"Failed: {refused}")
    except KeyboardInterrupt:
        sys.exit("Stopped looking; what was started goes on in the stack")
