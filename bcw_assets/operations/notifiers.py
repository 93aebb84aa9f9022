"""The messengers of BCW_NOTIFY_URLS, and handing one of them a message. What it says stands in alerts.

Apprise is imported where it is used: 0.1 s, which only a message that is due needs.
"""

import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from urllib.parse import unquote

from bcw_assets.deadline import within
from bcw_assets.errors import SettingsError
from bcw_assets.settings import Settings, bypass_proxies_on_loopback, list_secrets

LIMIT = 10.0  # seconds for a message; Apprise's own limits leave out a server that drips
BETWEEN_URLS = re.compile(r"[\s,]+(?=[a-z0-9]{1,32}://)", re.IGNORECASE)  # as Apprise: a URL may have commas in it
LONGEST_BODY = 1350  # characters: with three lines beside it, a message stays below 2,000
MASK = "***"
SHORTEST_SECRET = 6  # characters; a shorter one would be found in every text
CREDENTIALS = re.compile(r"(?<=://)[^\s/]+(?=@)")
ASSIGNED = re.compile(r"(?i)((?:token|secret|passw(?:or)?d|signature|credential|api_?key)[\w-]*[\"']?[=:]\s*)[^\s&;,]+")
ACCESS_KEY = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")
# What is markup or rouses everybody in one messenger or another becomes the nearest character that does not.
HARMLESS = str.maketrans({"<": "‹", ">": "›", "@": "＠", "`": "'"})

logging.getLogger("apprise").propagate = False  # what it logs may show parts of a URL: `deliver` reads and masks it


class Message(NamedTuple):
    """What is sent, as plain text; the title is one line, and the kind may colour it."""

    title: str
    body: str
    kind: Literal["info", "success", "failure"] = "info"


@dataclass(frozen=True)
class Messenger:
    """One of BCW_NOTIFY_URLS, by its position from 1; the URL is a secret."""

    position: int
    url: str = field(repr=False)

    @property
    def scheme(self) -> str:
        """What stands before ://, by which people know it; what has no scheme may be a secret all of it."""
        match = re.match(r"[a-z][a-z0-9.+-]*(?=://)", self.url.lower())
        return match[0] if match else "no scheme"

    @property
    def name(self) -> str:
        """A name that stays when others come and go; of a hash so short that no password can be guessed by it."""
        return f"{self.scheme}-{hashlib.sha256(self.url.encode()).hexdigest()[:4]}"

    def __str__(self) -> str:
        return f"{self.position} ({self.scheme})"

    def deliver(self, message: Message) -> str:
        """Send a message, and say why it was not accepted in time; empty if it was. Whatever goes wrong is a reason."""
        bypass_proxies_on_loopback()
        try:
            reason = within(LIMIT, lambda: self._send(message))
        except Exception as error:  # noqa: BLE001 (a hundred plugins, of which no run may suffer)
            reason = str(error) or type(error).__name__
        return " ".join(remove_secrets_and_markup(reason, list_secret_parts([self])).split())

    def _send(self, message: Message) -> str:
        from apprise import Apprise, AppriseAsset, LogCapture, NotifyFormat, NotifyType

        asset = AppriseAsset(app_id="bcw_assets", async_mode=False, storage_mode="memory")
        # Sockets say why at the level of debugging only, beside what was sent.
        with LogCapture(level=logging.DEBUG, fmt="%(levelname)s %(message)s") as log:  # type: ignore[no-untyped-call]
            plugin = Apprise.instantiate(self.url, asset=asset)
            if plugin is None:
                return "Apprise cannot use this URL; its forms are at https://github.com/caronc/apprise/wiki"
            plugin.notify_format = NotifyFormat.TEXT  # the same for all, and nothing in a text is markup
            # A redirect, perhaps to a page that asks for a password, is followed by a GET without the message.
            plugin.redirects = False
            sender, text = Apprise(plugin), NotifyFormat.TEXT
            if sender.notify(message.body, message.title, NotifyType(message.kind), body_format=text):
                return ""
        lines = re.findall(r"^(?:WARNING|ERROR|DEBUG (?=Socket Exception)) ?(.+)$", log.getvalue(), re.MULTILINE)
        return "; ".join(lines) or "Apprise does not say why"


def list_messengers(settings: Settings) -> list[Messenger]:
    """Return the messengers in the order of BCW_NOTIFY_URLS, which has spaces or commas between them."""
    urls = filter(None, BETWEEN_URLS.split(settings.notify_urls.strip(", \t\r\n")))
    return [Messenger(position, url) for position, url in enumerate(urls, start=1)]


def list_secret_parts(messengers: Sequence[Messenger]) -> list[str]:
    """Return what no text may show of the environment, and of the messengers' URLs: all but the host."""
    parts = {*list_secrets(), *(messenger.url for messenger in messengers)}
    for messenger in messengers:
        for before, part in re.findall(r"(^|[/:@?&=]+)([^/:@?&=]+)", messenger.url.partition("://")[2]):
            is_host = before.endswith("@") or (not before and "." in part)  # in slack://token/… a token is there
            parts |= set() if is_host else {part, unquote(part)}
    return [part for part in parts if len(part) >= SHORTEST_SECRET]


def remove_secrets_and_markup(text: str, hidden: Sequence[str]) -> str:
    """Return a text of bounded length, without secrets, and without what is markup or a mention in a messenger."""
    for secret in sorted(hidden, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = ASSIGNED.sub(rf"\1{MASK}", CREDENTIALS.sub(MASK, ACCESS_KEY.sub(MASK, text))).translate(HARMLESS)
    text = "".join(letter for letter in text if letter.isprintable() or letter == "\n")
    return text if len(text) <= LONGEST_BODY else f"{text[:LONGEST_BODY]} … (cut; the run has all of it)"


def send_test(settings: Settings) -> dict[Messenger, str]:
    """Send every messenger a test message, and return why it was not accepted; a SettingsError if there is none."""
    messengers = list_messengers(settings)
    if not messengers:
        raise SettingsError("BCW_NOTIFY_URLS is not set, so nobody is told; allowed are URLs of Apprise")
    links = f"Links in messages lead to {settings.ui_url}." if settings.ui_url else "BCW_UI_URL is not set: no links."
    message = Message("bcw_assets: test message", f"Alerts of bcw_assets reach you here. {links}")
    return {messenger: messenger.deliver(message) for messenger in messengers}
