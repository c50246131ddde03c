"""The command line: `python supervisor.py run`, and the same as `tally run` once installed."""

import click

from tally.commands.command_line import FROM_A_CHECKOUT, Program
from tally.version import VERSION

COMMANDS = {
    "adopt": "Take over accounts, customers and invoices of another system, with their own ids and dates.",
    "backup": "Copy customers.db and accounts.db into DIRECTORY, also while Tally runs.",
    "check": "Tell whether `run` would work here: settings, data directory, ports, Redis.",
    "completion": "Print what makes a shell complete the commands and options of `tally`.",
    "dead-letters": "Events that could not be applied: look at them, redrive, edit or discard them.",
    "demo": "Fill an empty, running Tally with accounts, customers and invoices to look at.",
    "events": "Print the stream: id, time, type and payload of each event.",
    "export": "Write a list of a running Tally to standard output, as CSV.",
    "groups": "See who reads the stream, and remove a group that nobody needs any more.",
    "import": "Record the purchases of a CSV file in a running Tally, each exactly once.",
    "join": "Begin a node or a standby from another's backup in DIRECTORY, while it is stopped.",
    "nodes": "See which Tallys share the stream, and remove one that is gone for good.",
    "promote": "Make this standby the primary of its node, whether the old one still runs or not.",
    "rebuild": "Build anew what can be built from something else.",
    "recover": "Make again what was lost with its disk.",
    "restore": "Replace customers.db and accounts.db by the copies in DIRECTORY, while Tally is stopped.",
    "run": "Start everything and stay until told to stop (Ctrl-C or SIGTERM).",
    "status": "Show the running supervisor's actors, and what waits to be published and applied.",
    "users": 'Who may sign in when auth.mode is "jwt".',
}
"""Each command, and the first line of its help. Where it is: see Program."""


@click.group(
    cls=Program, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}, example="run"
)
@click.version_option(VERSION, prog_name="tally")
def main() -> None:
    """Customers, invoices and account revenue, as two services over one Redis stream."""


if __name__ == "__main__":
    main(prog_name=FROM_A_CHECKOUT)
