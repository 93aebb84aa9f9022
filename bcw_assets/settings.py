"""The environment, read once and validated by name. Nothing else in the package reads it."""

import os
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, get_type_hints
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click
from dotenv import load_dotenv

from bcw_assets.errors import SettingsError
from bcw_assets.locations import parse_bucket

PREFIX = "BCW_"
AUTO, EMBEDDED = "auto", "embedded"
SECRET = re.compile(r"(KEY|KEY_ID|SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIALS)$")
# What Kubernetes puts into every pod for a Service of this name.
SERVICE_VARIABLE = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$")
MOST_DAYS = 36_500  # a century; Python's own limit of a duration explains nothing


def _parse_source(text: str) -> str:
    if "://" not in text:
        return text
    try:
        address = urlsplit(text)
    except ValueError as error:
        raise ValueError(f"this is no URL ({error}); allowed is one like https://example.org/wdbc.data") from error
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ValueError(f"a URL must begin with http:// or https:// and name a host, not {address.scheme}://")
    if address.username or address.password:
        raise ValueError("credentials must not stand in the URL, where they would be logged")
    return text


def _parse_checksum(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise ValueError(f"a SHA-256 is 64 hexadecimal digits, not {text!r}")
    return text.lower()


def _parse_place(text: str) -> str:
    parse_bucket(text)  # raises what is wrong with it
    return text


def _parse_zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, OSError, ValueError) as error:  # the last two: a folder of zones, no name at all
        raise ValueError(f"allowed is an IANA name like Europe/Berlin, not {text!r}") from error
    return text


def _parse_address(text: str) -> str:
    if not re.match("https?://[^/]", text):
        raise ValueError(f"allowed is the address of the UI, like https://bcw.example.org, not {text!r}")
    if "@" in text:
        raise ValueError("credentials must not stand in the URL, which every message shows")
    return text.rstrip("/")


def _parse_days(text: str) -> int:
    if not (re.fullmatch("0*[0-9]{1,5}", text) and 1 <= int(text[-5:]) <= MOST_DAYS):
        raise ValueError(f"allowed are whole numbers from 1 to {MOST_DAYS}, not {text!r}")
    return int(text[-5:])


@dataclass(frozen=True)
class Settings:
    """Where things are and when they happen, as docs/settings.md says; a knob for one run is the asset's config."""

    source: Annotated[str, _parse_source] = AUTO
    source_sha256: Annotated[str | None, _parse_checksum] = None
    storage: Annotated[str, _parse_place] = "."
    releases: Annotated[str | None, _parse_place] = None
    schedule_cron: Annotated[str, str] = "0 6 * * 1"
    schedule_timezone: Annotated[str, _parse_zone] = "UTC"
    autostart: Annotated[bool, click.BOOL] = False
    notify_urls: Annotated[str, str] = field(default="", repr=False)  # secrets
    ui_url: Annotated[str | None, _parse_address] = None
    stale_days: Annotated[int, _parse_days] = 14
    keep_days: Annotated[int, _parse_days] = 90

    @property
    def releases_place(self) -> str:
        """Where releases go."""
        return self.releases or self.storage

    @property
    def source_is_named(self) -> bool:
        """Whether the user named a URL or a path: then there is no fallback."""
        return self.source not in (AUTO, EMBEDDED)


# What makes a value of a variable's text, or raises a ValueError or click's own error.
PARSERS = {name: hint.__metadata__[0] for name, hint in get_type_hints(Settings, include_extras=True).items()}


def read_environment() -> Settings:
    """Return the settings of this process's environment, or raise a SettingsError that names the variables."""
    known = {PREFIX + name.upper(): name for name in PARSERS}
    values, problems = {}, []
    for name, text in sorted(os.environ.items(), reverse=True):  # of two spellings, capitals count
        variable = name.upper()
        if not variable.startswith(PREFIX) or (not text and variable in known):
            continue
        if variable in known:
            try:
                values[known[variable]] = PARSERS[known[variable]](text)
            except (ValueError, click.BadParameter) as error:
                problems.append(f"{variable}: {error}")
        elif not SERVICE_VARIABLE.search(name):
            near = get_close_matches(variable, known, n=1, cutoff=0)[0]
            problems.append(f"{name} is no setting; did you mean {near}? Allowed are {', '.join(sorted(known))}")
    settings = Settings(**values)
    if settings.source_sha256 and not settings.source_is_named:
        problems.append("BCW_SOURCE_SHA256 needs a BCW_SOURCE that is a URL or a path; UCI's checksum is built in")
    if problems:
        raise SettingsError("; ".join(sorted(problems)))
    return settings


def read_env_file() -> None:
    """Take over the `.env` of the working folder, whose values win over the environment's, as Dagster's CLI does."""
    try:
        load_dotenv(".env", override=True)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f".env cannot be read ({error}); allowed is a text file in UTF-8") from error
    os.environ["DAGSTER_HOME"] = dagster_home()  # for the processes that this one starts


def list_secrets() -> list[str]:
    """Return the values of this process's environment that no message may show, by the ends of their names."""
    return [value for name, value in os.environ.items() if SECRET.search(name.upper())]


def find_network_variables(url: str) -> tuple[str | None, str | None]:
    """Return the variables that name the proxy of an address and the certificates, as requests looks for them."""
    name = f"{urlsplit(url).scheme}_proxy"
    proxies, bundles = (name, name.upper(), "all_proxy", "ALL_PROXY"), ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    return next(filter(os.environ.get, proxies), None), next(filter(os.environ.get, bundles), None)


def bypass_proxies_on_loopback() -> None:
    """Let no proxy that the environment names see what this process sends to this machine."""
    hosts = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    missing = [host for host in ("127.0.0.1", "localhost", "::1") if host not in hosts.split(",")]
    if missing and hosts != "*":
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join([*filter(None, hosts.split(",")), *missing])


def dagster_home() -> str:
    """Return the folder of Dagster's history, by default the folder `.dagster` of the working folder."""
    try:
        return str(Path(os.environ.get("DAGSTER_HOME") or ".dagster").expanduser().absolute())
    except RuntimeError as error:
        raise SettingsError(f"DAGSTER_HOME: {error} Allowed is the path of a folder") from error
