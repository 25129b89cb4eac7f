"""The commands for whoever is on call: check, status; main thread."""

import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import click

from jobrunner.cli import options

WATCH_SECONDS = 5.0


@click.command()
@options.worker
@options.crons_file
@options.as_json
def check(path: Path | None, *, as_json: bool, **given: Any) -> NoReturn:
    """Look at all that consume needs; say what mends it.

    That is: settings, module, crons, queue, dead letters, permissions, clock, and supervisord's stop
    time where its file is found. Exit 1 if an error is found. It takes what consume takes, and changes nothing.

    \b
    Examples:
      jobrunner check --queue-url https://sqs.eu-west-1.amazonaws.com/123456789012/jobs
      jobrunner check --json | jq '.[] | select(.level != "ok")'
    """
    from jobrunner.operate import check as room

    given["log_format"] = given["log_format"] or "json"
    findings = []
    for finding in room.run(given, path):
        findings.append(finding)
        if not as_json:
            click.echo("\n".join(finding.lines()))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    sys.exit(1 if any(finding.level == "error" for finding in findings) else 0)


@click.command()
@options.queue_url
@click.option("--watch", is_flag=True, help=f"Look again every {WATCH_SECONDS:.0f} s, until Ctrl-C.")
@options.as_json
def status(queue_url: str, *, watch: bool, as_json: bool) -> None:
    """Show how many messages wait, run or are dead.

    \b
    Examples:
      jobrunner status
      jobrunner status --watch
      jobrunner status --json | jq .dead.visible
    """
    from jobrunner.operate import queues
    from jobrunner.operate import status as room

    queue = queues.operated(queue_url)
    with suppress(KeyboardInterrupt):
        while True:
            found = room.look(queue)
            if watch and sys.stdout.isatty():
                click.clear()
            click.echo(json.dumps(found.document()) if as_json else "\n".join(found.lines()))
            if not watch:
                break
            time.sleep(WATCH_SECONDS)
