"""The messengers of BCW_NOTIFY_URLS, and handing one of them a message. What it says stands in alerts.

Apprise is imported where it is used: 0.1 s, which only a message that is due needs.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

from bcw_assets.deadline import within
from bcw_assets.errors import SettingsError
from bcw_assets.settings import SHORTEST_SECRET, Settings

LIMIT = 10.0  # seconds for a message; Apprise's own limits leave out a server that drips
SCHEME = re.compile(r"[a-z][a-z0-9.+-]*")

logging.getLogger("apprise").disabled = True  # what it logs may show parts of a URL


@dataclass(frozen=True)
class Message:
    """What is sent.

    Attributes:
        title: one line.
        body: the rest, as plain text.
        kind: how the messenger may colour it.
    """

    title: str
    body: str
    kind: Literal["info", "success", "failure"] = "info"


@dataclass(frozen=True)
class Messenger:
    """One of BCW_NOTIFY_URLS.

    Attributes:
        position: in the list, from 1.
        url: how Apprise writes where messages go; a secret.
    """

    position: int
    url: str = field(repr=False)

    @property
    def scheme(self) -> str:
        """What stands before ://, by which people know it; what has no scheme may be a secret all of it."""
        scheme, separator, _ = self.url.partition("://")
        return scheme.lower() if separator and SCHEME.fullmatch(scheme.lower()) else "no scheme"

    @property
    def name(self) -> str:
        """A name that stays when others come and go; of a hash so short that no password can be guessed by it."""
        return f"{self.scheme}-{hashlib.sha256(self.url.encode()).hexdigest()[:4]}"

    def __str__(self) -> str:
        return f"{self.position} ({self.scheme})"

    def accepts(self, message: Message) -> bool:
        """Send a message, and say whether it was accepted in time; whatever goes wrong is a no."""
        try:
            return within(LIMIT, lambda: self._send(message))
        except Exception:  # noqa: BLE001 (a hundred plugins; what they say may show the URL, and no run may suffer)
            return False

    def secrets(self) -> Iterator[str]:
        """List the parts of the URL that no text may show, and all of it."""
        yield self.url
        for before, part in re.findall(r"(^|[/:@?&=]+)([^/:@?&=]+)", self.url.partition("://")[2]):
            is_host = before.endswith("@") or (not before and "." in part)  # in slack://token/… a token is there
            if not is_host:
                yield from {part, unquote(part)}

    def _send(self, message: Message) -> bool:
        from apprise import Apprise, AppriseAsset, NotifyFormat, NotifyType

        plugin = Apprise.instantiate(
            self.url, asset=AppriseAsset(app_id="bcw_assets", async_mode=False, storage_mode="memory")
        )
        if plugin is None:
            return False
        plugin.notify_format = NotifyFormat.TEXT  # the same for all, and nothing in a text is markup
        sender = Apprise()
        sender.add(plugin)
        kind = NotifyType(message.kind)
        return bool(sender.notify(message.body, title=message.title, notify_type=kind, body_format=NotifyFormat.TEXT))


def list_messengers(settings: Settings) -> list[Messenger]:
    """Return the messengers in the order of BCW_NOTIFY_URLS."""
    urls = settings.notify_urls.get_secret_value().split()
    return [Messenger(position, url) for position, url in enumerate(urls, start=1)]


def find_secrets(messengers: Sequence[Messenger]) -> list[str]:
    """Return what no text may show of the messengers' URLs."""
    return [secret for messenger in messengers for secret in messenger.secrets() if len(secret) >= SHORTEST_SECRET]


def send_test(settings: Settings) -> dict[Messenger, bool]:
    """Send every messenger a test message, and return who accepted it.

    Raises:
        SettingsError: there is none.
    """
    messengers = list_messengers(settings)
    if not messengers:
        raise SettingsError("BCW_NOTIFY_URLS is not set, so nobody is told; allowed are URLs of Apprise, with spaces")
    links = f"Links in messages lead to {settings.ui_url}." if settings.ui_url else "BCW_UI_URL is not set: no links."
    message = Message("bcw_assets: test message", f"Alerts of bcw_assets reach you here. {links}")
    return {messenger: messenger.accepts(message) for messenger in messengers}
