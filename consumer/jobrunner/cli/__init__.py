"""The command line: flags become settings, then one call; no logic. Main thread.

Each command imports what it uses when it runs: `--help` and `enqueue` should not wait for the rest.
"""

from typing import Any

import click

from jobrunner.cli.crons import crons
from jobrunner.cli.dead import dead
from jobrunner.cli.operate import check, status
from jobrunner.cli.scheduled import scheduled
from jobrunner.cli.sender import enqueue, methods
from jobrunner.cli.worker import consume, dev, health
from jobrunner.errors import JobrunnerError


class Commands(click.Group):
    """Turns our errors into one line on stderr and their exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except JobrunnerError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.exit_code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="jobrunner-sqs", prog_name="jobrunner")
def main() -> None:
    """Jobs and crons for a web app on AWS: SQS keeps them, this runs them.

    \b
    On a laptop:    jobrunner dev
    In production:  jobrunner consume --queue-url URL
    At night:       jobrunner check, then status, then dead list

    Each flag shown with an env var may be set there instead. Completion for bash, zsh or fish:
    eval "$(_JOBRUNNER_COMPLETE=bash_source jobrunner)"
    """


for command in (consume, enqueue, methods, check, status, dead, crons, scheduled, health, dev):
    main.add_command(command)
