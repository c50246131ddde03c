"""What the tests share: engines, a running Tally, and waiting for conditions."""

from pathlib import Path

import pytest

# So that an assertion that fails in here shows its figures, as one in a test does.
pytest.register_assert_rewrite(
    *(f"{__name__}.{each.stem}" for each in Path(__file__).parent.glob("[!_]*.py"))
)
