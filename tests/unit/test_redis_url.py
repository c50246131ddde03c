"""The URL of a Redis: the meaning of each form, and which URLs are refused."""

import pytest

from tally.redis_url import Host, RedisUrl, with_options

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("url", "shown", "hosts"),
    [
        ("redis://127.0.0.1", "redis://127.0.0.1:6379/0", [("127.0.0.1", 6379)]),
        (f"rediss://tally:{SECRET}@db:1/2?ssl_ca_certs=/ca", "rediss://db:1/2", [("db", 1)]),
        (f"unix://tally:{SECRET}@/run/redis.sock?db=3", "unix:///run/redis.sock", []),
        (
            f"redis+sentinel://:{SECRET}@a,b:1/m",
            "redis+sentinel://a:26379,b:1/m",
            [("a", 26379), ("b", 1)],
        ),
        ("redis+sentinel://a/main/2", "redis+sentinel://a:26379/main/2", [("a", 26379)]),
        (
            f"rediss+cluster://t:{SECRET}@[::1]:7,h:8",
            "rediss+cluster://[::1]:7,h:8",
            [("::1", 7), ("h", 8)],
        ),
        ("redis+cluster://a:1/0", "redis+cluster://a:1", [("a", 1)]),
    ],
)
def test_a_url_is_taken_apart_and_shown_without_secrets(
    url: str, shown: str, hosts: list[tuple[str, int]]
) -> None:
    found = RedisUrl(url)
    assert (str(found), list(found.hosts)) == (shown, [Host(*host) for host in hosts])
    assert found.password == (SECRET if SECRET in url else None)
    assert found.is_tls == url.startswith("rediss")


def test_sentinels_have_a_login_of_their_own_and_redis_py_keeps_its_options() -> None:
    found = RedisUrl(
        f"redis+sentinel://u:p%40@a,b/the%20main/3?sentinel_username=s&sentinel_password={SECRET}&health_check_interval=5"
    )
    assert (found.service, found.database, found.password) == ("the main", 3, "p@")
    assert found.sentinel_login == {"username": "s", "password": SECRET}
    assert RedisUrl(found.plain).options["health_check_interval"] == 5


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://a",
        "redis+sentinel://a/",
        "redis+sentinel:///main",
        "redis+sentinel://a,,b/main",
        "redis+cluster://a:x",
        "redis+cluster://a/1",
        "redis+cluster://a:99999",
        "redis+cluster://",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        RedisUrl(url)


def test_an_option_that_redis_py_does_not_know_is_refused() -> None:
    with pytest.raises(TypeError, match="'foo'"):
        RedisUrl("redis+cluster://a?foo=1")


def test_options_are_added_to_those_that_are_there() -> None:
    assert with_options("rediss://a", {}) == "rediss://a"
    both = with_options(with_options("rediss://a/0", {"ssl_ca_certs": "/a b&c"}), {"ssl_keyfile": "/k"})
    assert RedisUrl(both).files == {"ssl_ca_certs": "/a b&c", "ssl_keyfile": "/k"}
