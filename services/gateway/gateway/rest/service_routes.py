"""`/health`, `/metrics` and `/iceservers`: what is told of the service itself (protocol sections 7.5 and 7.8)."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from dialbus.config import IceServer
from dialbus.health import Health
from gateway.iceservers import ice_servers
from gateway.rest import models
from gateway.rest.answers import add
from gateway.workers import Workers

OWN_NAME = "gateway"


class ServiceRoutes:
    """How the exchange and this gateway are."""

    def __init__(self, health: Health, workers: Workers, ice: Sequence[IceServer] | None) -> None:
        self._health = health
        self._workers = workers
        self._ice = ice

    def add_to(self, router: APIRouter) -> None:
        """Add the routes."""
        add(router, "/health", self.health, "GET", response_model=models.HealthReport, tags=["service"],
            responses={
                503: {"model": models.HealthReport, "description": "Not ready, or services have yet to begin."},
                404: {"model": models.Denied, "description": "`service` is another one."},
            })  # fmt: skip
        add(router, "/iceservers", self.iceservers, "GET", response_model=list[models.IceServerEntry], tags=["calls"])
        add(router, "/metrics", self.metrics, "GET", response_class=Response, tags=["service"],
            responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})  # fmt: skip

    async def health(
        self,
        service: Annotated[
            str | None,
            Query(description="`gateway`: this process alone, whatever the others do.", examples=["gateway"]),
        ] = None,
    ) -> Any:
        """Whether the exchange is ready for calls, and what goes on in it.

        `starting` until each service that `[health] expects` has had a ready worker; from then on it is this gateway's
        own state that counts.
        """
        if service not in (None, "", OWN_NAME):
            return JSONResponse({"error": f"this is the {OWN_NAME}"}, status_code=404)
        status, body = self._health.report()
        waiting_for = self._workers.waiting_for() if service is None else []
        if status == 200 and waiting_for:
            status = 503
            body |= {"status": "starting", "ready": False, "waiting_for": waiting_for}
        return JSONResponse(body, status_code=status)

    async def iceservers(self) -> Any:
        """The STUN and TURN servers for a browser's connection."""
        return JSONResponse(ice_servers(self._ice))

    async def metrics(self) -> Response:
        """Prometheus."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
