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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SETTINGS = FOLDER / "stack.env"
LOCATION = {"repositoryLocationName": "bcw_assets"}
REPOSITORY = LOCATION | {"repositoryName": "__repository__"}
PROJECT = os.environ.get("COMPOSE_PROJECT_NAME", "bcw-assets")
WAITS = (1, 2, 4, 8, 16)  # seconds
ERROR = "{ __typename ... on Error { message } }"
ENDED = ("SUCCESS", "FAILURE", "CANCELED")

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
    if _read_output(["docker", "volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}"]):
        raise Refused(
            f"{SETTINGS} is missing, but not the data of an earlier stack, which only the passwords in it open. Put it "
            f"back, or remove that data: make clean"
        )
    password, compose = secrets.token_urlsafe(24), (FOLDER.parent / "docker-compose.yml").read_text()
    caddy = next(line.split()[1] for line in compose.splitlines() if line.strip().startswith("image: caddy:"))
    text = TEMPLATE.format(
        password=password,
        hash=_read_output(
            ["docker", "run", "--rm", "--interactive", caddy, "caddy", "hash-password", "--bcrypt-cost", "10"],
            f"{password}\n",
        ),
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
    launched = _ask(
        """mutation ($params: ExecutionParams!) {
             answer: launchRun(executionParams: $params) {
               __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message } } }""",
        params={"selector": REPOSITORY | {"jobName": "refresh_job"}, "runConfigData": {}},
    )
    run_id = launched["run"]["runId"]
    status, again = _follow(run_id)
    while again:
        run_id = _find_retry(run_id)
        status, again = _follow(run_id)
    if status != "SUCCESS":
        raise Refused(f"The refresh ended as {status}")


def pause() -> None:
    """Stop every schedule and sensor."""
    for kind, automation in _list_automations():
        verb = "stopRunningSchedule" if kind == "Schedule" else "stopSensor"
        _ask(f"mutation ($id: String!) {{ answer: {verb}(id: $id) {ERROR} }}", id=automation["state"]["id"])
        print(f"{automation['name']} is paused")


def unpause() -> None:
    """Start every schedule and sensor."""
    for kind, automation in _list_automations():
        named = f"{kind.lower()}Selector: $it"
        _ask(
            f"mutation ($it: {kind}Selector!) {{ answer: start{kind}({named}) {ERROR} }}",
            it=REPOSITORY | {f"{kind.lower()}Name": automation["name"]},
        )
        print(f"{automation['name']} runs")


def reload() -> None:
    """Load the code again, with what is installed in its container."""
    loaded = _ask(
        """mutation ($name: String!) {
             answer: reloadRepositoryLocation(repositoryLocationName: $name) {
               __typename ... on Error { message }
               ... on WorkspaceLocationEntry { locationOrLoadError { __typename ... on Error { message } } } } }""",
        name=LOCATION["repositoryLocationName"],
    )["locationOrLoadError"]
    if loaded["__typename"] != "RepositoryLocation":
        raise Refused(f"The code cannot be loaded: {loaded['message']}")
    print("The code is loaded")


def _follow(run_id: str) -> tuple[str, bool]:
    """Print what a run does until it has ended; return its status, and whether it will be tried again."""
    print(f"Run {_find_address()}/runs/{run_id}", flush=True)
    cursor = None
    while True:
        answer = _ask(
            """query ($run: ID!, $cursor: String) {
                 answer: runOrError(runId: $run) {
                   __typename ... on Error { message }
                   ... on Run { status tags { key value } eventConnection(afterCursor: $cursor) { cursor events {
                     __typename
                     ... on MessageEvent { message stepKey }
                     ... on MaterializationEvent { metadataEntries { label ... on TextMetadataEntry { text } } }
                     ... on ExecutionStepFailureEvent { error { message } failureMetadata { description } }
                     ... on RunFailureEvent { error { message } } } } } } }""",
            run=run_id,
            cursor=cursor,
        )
        for event in answer["eventConnection"]["events"]:
            for line in _describe(event):
                print(line, flush=True)
        cursor = answer["eventConnection"]["cursor"]
        if answer["status"] in ENDED:
            return answer["status"], {"key": "dagster/will_retry", "value": "true"} in answer["tags"]
        time.sleep(1)


def _describe(event: dict[str, Any]) -> Iterator[str]:
    kind = event["__typename"]
    if kind == "ExecutionStepSuccessEvent":
        yield event["message"]
    elif kind == "MaterializationEvent" and event["stepKey"] == "release":
        facts = {entry["label"]: entry.get("text") for entry in event["metadataEntries"]}
        yield f"Release {facts['release']}: {facts['result']}"
    elif kind in ("ExecutionStepFailureEvent", "RunFailureEvent"):
        reason = (event.get("failureMetadata") or {}).get("description") or (event.get("error") or {}).get("message")
        yield f"{event['stepKey'] or 'The run'}: {reason or event['message']}"


def _find_retry(run_id: str) -> str:
    for _ in range(120):
        runs = _ask(
            """query ($tag: ExecutionTag!) {
                 answer: runsOrError(filter: {tags: [$tag]}) {
                   __typename ... on Runs { results { runId } } ... on Error { message } } }""",
            tag={"key": "dagster/parent_run_id", "value": run_id},
        )["results"]
        if runs:
            return str(runs[0]["runId"])
        time.sleep(1)
    raise Refused(f"Run {run_id} crashed, and was not started again within two minutes; look at: make ps logs")


def _list_automations() -> list[tuple[str, dict[str, Any]]]:
    """Return every schedule and sensor, and which of the two it is."""
    repository = _ask(
        """query ($repository: RepositorySelector!) {
             answer: repositoryOrError(repositorySelector: $repository) {
               __typename ... on Error { message }
               ... on Repository {
                 schedules { name state: scheduleState { id } }
                 sensors { name state: sensorState { id } } } } }""",
        repository=REPOSITORY,
    )
    schedules, sensors = repository["schedules"], repository["sensors"]
    return [*(("Schedule", entry) for entry in schedules), *(("Sensor", entry) for entry in sensors)]


def _ask(query: str, **variables: Any) -> Any:
    """Return the answer of the web server, which the proxy passes on; a question is asked again while there is none."""
    for wait in WAITS if query.startswith("query") else ():
        try:
            return _ask_once(query, variables)
        except NoAnswer:
            time.sleep(wait)
    return _ask_once(query, variables)


def _ask_once(query: str, variables: dict[str, Any]) -> Any:
    values = _read_settings()
    login = base64.b64encode(f"{values['BCW_USER']}:{values['BCW_PASSWORD']}".encode()).decode()
    request = urllib.request.Request(
        f"{_find_address()}/graphql",
        json.dumps({"query": query, "variables": variables}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Basic {login}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            document = json.load(reply)
    except (OSError, ValueError) as error:  # the second: a reply that breaks off
        if isinstance(error, urllib.error.HTTPError) and error.code == 401:
            raise Refused(
                f"{_find_address()} refuses the BCW_PASSWORD of {SETTINGS}; put it right, or after a change: make up"
            ) from error
        raise NoAnswer(
            f"{_find_address()} does not answer as it should ({error}). Is the stack up? make ps, make up"
        ) from error
    answer = (document.get("data") or {}).get("answer") or {"message": f"{document.get('errors')}"}
    if "message" in answer:
        raise NoAnswer(answer["message"])
    return answer


def _find_address() -> str:
    values = _read_settings()
    if site := values.get("BCW_SITE"):
        return f"https://{site}"
    host = values.get("BCW_BIND", "127.0.0.1")
    return f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{values.get('BCW_PORT', '8080')}"


def _read_settings() -> dict[str, str]:
    if not SETTINGS.exists():
        raise Refused(f"{SETTINGS} is not there, so no stack was started here; start it: make up")
    lines = (line.partition("=") for line in SETTINGS.read_text().splitlines() if not line.startswith("#"))
    return {name: value.strip().strip("'\"") for name, _, value in lines if value}


def _read_output(command: list[str], text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout.strip()


VERBS: dict[str, Callable[[], None]] = {
    verb.__name__: verb for verb in (settings, address, run, pause, unpause, reload)
}

if __name__ == "__main__":
    try:
        VERBS[sys.argv[1]]()
    except Refused as refused:
        sys.exit(f"Failed: {refused}")
    except KeyboardInterrupt:
        sys.exit("Stopped looking; what was started goes on in the stack")
