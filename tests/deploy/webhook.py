"""Who Alertmanager tells: a webhook that keeps what it is told."""

from typing import Any

from aiohttp import web

from tests.support.until import until


class Webhook:
    """`async with Webhook(port) as told: await told.alert("HirobaNodeDown", "firing", instance)`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.messages: list[dict[str, Any]] = []
        app = web.Application()
        for path in ("/alerts", "/watchdog"):
            app.router.add_post(path, self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def _take(self, request: web.Request) -> web.Response:
        self.messages.append(await request.json() | {"path": request.path})
        return web.Response()

    async def __aenter__(self) -> "Webhook":
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def told(self) -> set[str]:
        """The alerts that fired, by name."""
        return {
            alert["labels"]["alertname"]
            for message in self.messages
            for alert in message["alerts"]
            if alert["status"] == "firing"
        }

    async def alert(self, name: str, status: str, instance: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """The first message of it, and the alert in that: as soon as it comes."""

        def found() -> list[tuple[dict[str, Any], dict[str, Any]]]:
            return [
                (message, alert)
                for message in self.messages
                for alert in message["alerts"]
                if (alert["labels"]["alertname"], alert["labels"].get("instance")) == (name, instance)
                and alert["status"] == status
            ]

        return (await until(found, f"{name} {status} for {instance}", 60))[0]
