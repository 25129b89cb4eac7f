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
@click.option(
    "--queue-url",
    "queue_urls",
    multiple=True,
    **options.variable("QUEUE_URL"),
    help="URL of the SQS queue; repeatable.",
)
@click.option("--watch", is_flag=True, help=f"Look again every {WATCH_SECONDS:.0f} s, until Ctrl-C.")
@click.option(
    "--status-file",
    "paths",
    multiple=True,
    **options.variable("STATUS_FILE"),
    type=click.Path(path_type=Path, resolve_path=True),
    help="With --watch: what consume was given, or a folder of them; repeatable. Shows what workers here run.",
)
@options.as_json
def status(queue_urls: tuple[str, ...], paths: tuple[Path, ...], *, watch: bool, as_json: bool) -> None:
    """Show how many messages wait, run or are dead.

    With --watch also how that goes: rates of the last minute, when the queue will be empty, which jobs became
    dead letters, and what the workers of this machine run, by method and age.

    \b
    Examples:
      jobrunner status
      jobrunner status --watch --status-file /run/jobrunner
      jobrunner status --json | jq .dead.visible
    """
    from jobrunner.operate.queues import operated
    from jobrunner.operate.watch import QueueWatch

    watches = [QueueWatch(operated(url)) for url in queue_urls or ("",)]
    if watch and not as_json:
        from jobrunner.cli import watching

        watching.watch(watches, paths, every_seconds=WATCH_SECONDS)
        return
    with suppress(KeyboardInterrupt):
        while True:
            for each in watches:
                seen = each.status()
                click.echo(json.dumps(seen.document()) if as_json else "\n".join(seen.lines()))
            if not watch:
                break
            time.sleep(WATCH_SECONDS)
