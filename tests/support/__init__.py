"""Helpers that the tests share: engines, a running Tally, and waiting for conditions."""

from pathlib import Path

import pytest

# So a failed assertion in these modules shows its values, as in a test.
pytest.register_assert_rewrite(
    *(f"{__name__}.{each.stem}" for each in Path(__file__).parent.glob("[!_]*.py"))
)
