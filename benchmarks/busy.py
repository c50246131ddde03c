"""The costs of each process while 16 clients post invoices as fast as they can."""

from benchmarks import cdnow, costs, load
from benchmarks.apart import apart
from benchmarks.load import Load
from benchmarks.plan import Plan, Result
from benchmarks.report import paragraph, spread
from benchmarks.running import Running, running
from benchmarks.scene import Scene

CLIENTS = 16


def measure(plan: Plan) -> Result:
    """Watch a Tally under load, each time a new one; return its costs."""
    seconds = plan.choose(10.0, 2.0)
    windows, rates = [], []
    for run in range(plan.runs):
        plan.say(f"busy: run {run + 1} of {plan.runs}")
        with running(plan.base) as tally:
            found, window = _watch(tally, seconds)
        windows.append(window)
        rates.append(found.rate)
    return Result(f"{costs.tabled(windows)}\n\n{_notes(seconds, rates)}")


def _watch(tally: Running, seconds: float) -> tuple[Load, costs.Costs]:
    scene = Scene(tally, cdnow.CUSTOMERS)
    found: list[Load] = []

    def post() -> None:
        found.append(apart(load.run, tally.customers_port, scene.requests(5_000), CLIENTS, seconds))

    window = costs.watch(tally, post)
    scene.sent += found[0].weight
    scene.insist()
    return found[0], window


def _notes(seconds: float, rates: list[float]) -> str:
    return paragraph(f"""
        Default settings, {CLIENTS} clients posting single invoices without a pause for {seconds:.0f} s,
        at {spread(rates, ",.0f")} requests a second; the load's own process, and its start, are not in
        the table but share the cores. Memory at the end of the load. MB is 10^6 bytes.
    """)
