"""What the process of a private Prefect server runs: `private_server_process.py PORT`.

Serves Prefect's application to this machine, as `prefect server start --no-services` does, but without importing all of
Prefect's commands first, which is a third of that command's start, and without bringing an empty database through every
change that Prefect's tables ever had, which is two thirds of the rest. Reads the settings in the environment that
`private_server` gives it. Writes nothing.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from hir_core.light_imports import uncollected

if TYPE_CHECKING:
    import uvicorn

HOST = "127.0.0.1"


def main() -> None:
    """Serves on the port that the command line names, until a signal ends the process."""
    with uncollected():
        import uvicorn
        from prefect.server.api.server import create_app
    app = create_app(webserver_only=True, final=True)
    asyncio.run(serve(uvicorn.Server(uvicorn.Config(app, host=HOST, port=int(sys.argv[1]), log_level="warning"))))


async def serve(server: uvicorn.Server) -> None:
    """Serves, with a database in memory that this event loop has made."""
    await create_tables()
    await server.serve()


async def create_tables() -> None:
    """Makes Prefect's tables as its objects describe them; some describe an index twice."""
    from prefect.server.database import provide_database_interface

    database = provide_database_interface()
    metadata = database.Base.metadata
    for table in metadata.tables.values():
        table.indexes.intersection_update({index.name: index for index in table.indexes}.values())
    async with (await database.engine()).begin() as connection:
        await connection.run_sync(metadata.create_all)


if __name__ == "__main__":
    main()
