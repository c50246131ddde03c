"""The writing thread answers requests that change something, except sign-ins and imports."""

import pytest

from tally.http.service import is_change


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH", "BREW"])
@pytest.mark.parametrize("path", ["/invoices", "/customers/1", "/auth/login/", "/auth", "/", "*"])
def test_what_may_change_something_is_answered_by_the_thread_that_writes(method: str, path: str) -> None:
    assert is_change(method, path)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_what_only_reads_holds_up_no_write(method: str) -> None:
    assert not is_change(method, "/invoices")


@pytest.mark.parametrize("path", ["/auth/login", "//auth/login", "///auth/login"])
def test_nor_does_the_check_of_a_password(path: str) -> None:
    assert not is_change("POST", path)


def test_nor_is_a_file_read_by_it_that_is_imported() -> None:
    assert not is_change("POST", "/imports")
