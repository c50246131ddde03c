"""`status`: what the supervisor and the services tell, once or again and again."""

import click

from tally.actors.control import NotAnswering, NotRunning
from tally.commands import next_command, status_report
from tally.commands.command_line import Failed
from tally.commands.shared import Command, faults_told, printing
from tally.config import Settings


@click.command(cls=Command, example="status --watch")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
def status(settings: Settings, as_json: bool, watch: bool) -> None:
    """Show the running supervisor's actors, and what waits to be published and applied.

    Below stands what is wrong, each trouble once, and behind `next:` the command to go on with. With --watch
    it goes on while no supervisor runs, and sees it come back.

    Exit status 1 when no supervisor runs here.
    """
    try:
        with faults_told(settings, NotAnswering), printing():
            if watch:
                status_report.watch(settings, as_json)
            else:
                status_report.look(settings).show(as_json)
    except NotRunning as error:
        raise Failed(f"{error}; next: {next_command.called('run')}") from error
