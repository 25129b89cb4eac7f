"""crons.toml: one table per cron, checked against the catalog; main thread."""

import re
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jobrunner.app.catalog import Catalog
from jobrunner.crons.expression import Schedule, parse
from jobrunner.errors import BadParams, MalformedMessage, ScheduleError, UnknownMethod
from jobrunner.message import Call, encode

FILE = "crons.toml"
#: AWS: Scheduler's names, with room for the hash that ours end in.
NAME = re.compile(r"[0-9a-zA-Z_.-]{1,55}")
#: AWS: Scheduler fires within the minute that is due, not on its first second.
AGE_SECONDS_GOOD = 120
KEYS: dict[str, type | tuple[type, ...]] = {
    "method": str,
    "schedule": str,
    "timezone": str,
    "params": (dict, list),
    "max_age_seconds": int,
    "enabled": bool,
    "description": str,
}
NAMES = {
    "method": "text",
    "schedule": "text",
    "timezone": "text",
    "params": "a table or an array",
    "max_age_seconds": "a whole number",
    "enabled": "true or false",
    "description": "text",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """One table of the file."""

    name: str
    method: str
    schedule: Schedule
    params: dict[str, Any] | list[Any]
    max_age_seconds: int | None
    enabled: bool
    description: str

    def call(self, scheduled_at: str) -> Call:
        """Give the call of one tick; its id is the same however often the tick is delivered."""
        return Call(
            method=self.method,
            params=self.params,
            id=f"{self.name}@{scheduled_at}",
            scheduled_at=scheduled_at,
            max_age_seconds=self.max_age_seconds,
        )

    def drops_healthy_ticks(self) -> bool:
        """Tell whether a worker may find a tick too old that came within its minute."""
        return self.max_age_seconds is not None and self.max_age_seconds < AGE_SECONDS_GOOD

    def next(self, after: datetime, count: int) -> list[datetime]:
        """Give the next fires, in UTC; none if it is disabled or never fires again."""
        return list(islice(self.schedule.after(after), count)) if self.enabled else []


def beside(module_name: str, app_dir: Path) -> Path:
    """Name the file that belongs to a loaded module: beside its code, or in its package; else in the app's folder."""
    module = sys.modules.get(module_name)
    file = getattr(module, "__file__", None)
    folders = [*getattr(module, "__path__", ()), *([Path(file).parent] if file else ()), app_dir]
    return Path(folders[0]) / FILE


def load(path: Path, catalog: Catalog) -> list[Cron]:
    """Read the file; raises ScheduleError naming file, line, table, value and cure."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ScheduleError(f"no {path}: write one table per cron there, or name the file with --crons") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ScheduleError(f"{path} cannot be read: {error}") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScheduleError(f"{path}: not TOML: {error}") from None
    crons = []
    for name, table in document.items():
        try:
            crons.append(_cron(name, table, catalog))
        except (ScheduleError, UnknownMethod, BadParams, MalformedMessage) as error:
            raise ScheduleError(f"{path}:{_line(text, name)} [{name}]: {error}") from None
    return crons


def _cron(name: str, table: Any, catalog: Catalog) -> Cron:
    if not NAME.fullmatch(name):
        raise ScheduleError("a cron's name is 1 to 55 of letters, digits, _ . -")
    if not isinstance(table, Mapping):
        raise ScheduleError(f"{name!r} is not a table: write a line [NAME], the cron's name, above its keys")
    _check_keys(table)
    zone = _zone(table.get("timezone", "UTC"))
    cron = Cron(
        name=name,
        method=table["method"],
        schedule=parse(table["schedule"], zone),
        params=table.get("params", {}),
        max_age_seconds=table.get("max_age_seconds"),
        enabled=table.get("enabled", True),
        description=table.get("description", ""),
    )
    catalog.find(cron.method).bind(cron.params)
    encode(cron.call("2026-01-01T00:00:00Z"))
    return cron


def _check_keys(table: Mapping[str, Any]) -> None:
    for key, value in table.items():
        if key not in KEYS:
            raise ScheduleError(f"unknown key {key!r}; known: {', '.join(KEYS)}")
        if not isinstance(value, KEYS[key]) or (KEYS[key] is int and isinstance(value, bool)):
            raise ScheduleError(f"{key} = {value!r} is not {NAMES[key]}: it has the wrong type")
    for key in ("method", "schedule"):
        if key not in table:
            raise ScheduleError(f"{key} is missing")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ScheduleError(f"timezone {name!r} is not an IANA name such as Europe/Berlin") from None


def _line(text: str, name: str) -> int:
    heading = re.compile(rf"\s*\[+\s*[\"']?{re.escape(name)}[\"']?\s*[\].]|\s*{re.escape(name)}\s*=")
    return next((number for number, line in enumerate(text.splitlines(), 1) if heading.match(line)), 1)
