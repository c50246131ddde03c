"""The routes of a service's application, as Falcon lists them."""

from pathlib import Path

import falcon.inspect

from tally import config
from tally.actors import family
from tally.actors.limits import Limits
from tally.actors.services import SERVICES
from tally.http.application import Router
from tally.recovery import first_start

falcon.inspect.register_router(Router)(falcon.inspect.inspect_compiled_router)


def served(service: str, directory: Path) -> falcon.inspect.AppInfo:
    """The application of `service` with tokens, its data in `directory`."""
    file = directory / "tally.toml"
    file.write_text('[auth]\nmode = "jwt"\n')
    settings = config.load(file, {})
    family.prepare(settings, [service])
    first_start.make(settings.directory)
    family.prepare(settings, SERVICES)
    limits = Limits(connections=1, body_bytes=1, unsent_bytes=1, sign_ins=1)
    api = family.Family(settings, settings.redis.url, {}, is_private=False).api(service, limits)
    return falcon.inspect.inspect_app(api.app)


def routes(app: falcon.inspect.AppInfo) -> set[tuple[str, str]]:
    """Method and path of each, without Falcon's own, and without HEAD, which follows GET."""
    return {
        (method.method, route.path)
        for route in app.routes
        for method in route.methods
        if not method.internal and method.method != "HEAD"
    }
