"""Makes the message of an alert in the form of Slack's incoming webhooks. Pure.

https://api.slack.com/messaging/webhooks, https://api.slack.com/reference/block-kit/blocks and
https://api.slack.com/reference/surfaces/formatting (read 2026-11-30): `text` is what notifications show, and what
receivers without blocks show (Mattermost, Rocket.Chat, Discord's `/slack`), so it says everything; a section holds at
most 3,000 characters, a context at most 10 elements; `&`, `<` and `>` are written as entities, which also keeps a text
from the wire from mentioning people.
"""

from __future__ import annotations

from typing import Any

from kalshi_platform.monitoring.alerts.alert import DueAlert
from kalshi_platform.monitoring.plain_text import mask_secrets, plain, plain_lines

SECTION_LIMIT = 3_000
"""Characters of the text of a section block, entities counted as they are written."""
_TEXT_LIMIT = 2_400
_SUBJECT_LIMIT = 200
_SYMBOLS = {"info": ":information_source:", "warning": ":warning:", "error": ":rotating_light:"}
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def slack_message(due: DueAlert, host: str) -> dict[str, Any]:
    """Return the JSON of an alert's message; `host` is the machine that sends it."""
    alert = due.alert
    kind, subject = (_escape(plain(each), _SUBJECT_LIMIT) for each in alert.key)
    head = f"{_SYMBOLS[alert.severity]} *{kind}* {subject}"
    body = f"{head}\n{_escape(plain_lines(mask_secrets(alert.text)), _TEXT_LIMIT)}"
    times = f", raised {due.times:,} times since the last message" if due.times > 1 else ""
    foot = (
        f"{alert.severity}, {alert.at:%Y-%m-%d %H:%M:%S} UTC{times}, from {_escape(plain(host), _SUBJECT_LIMIT)};"
        f" see docs/operations.md, section {alert.section}"
    )
    return {
        "text": f"{body}\n{foot}",
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": body}},
            {"type": "context", "elements": [{"type": "mrkdwn", "text": foot}]},
        ],
    }


def _escape(text: str, limit: int) -> str:
    """Return the beginning of a text, with entities: at most `limit` characters as they are written."""
    shown: list[str] = []
    size = 0
    for character in text:
        written = _ENTITIES.get(character, character)
        size += len(written)
        if size > limit:
            return "".join(shown).rstrip() + " …"
        shown.append(written)
    return "".join(shown)
