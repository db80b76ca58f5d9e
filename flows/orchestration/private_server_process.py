"""What the process of a private Prefect server runs: `private_server_process.py PORT`.

Serves Prefect's application to this machine, as `prefect server start --no-services` does, but without importing all of
Prefect's commands first, which is a third of that command's start. Reads the settings in the environment that
`private_server` gives it. Writes nothing.
"""

from __future__ import annotations

import gc
import sys

HOST = "127.0.0.1"


def main() -> None:
    """Serves on the port that the command line names, until a signal ends the process."""
    gc.disable()  # what the imports make stays: searching it for garbage takes a fifth of their time
    import uvicorn
    from prefect.server.api.server import create_app

    gc.freeze()
    gc.enable()
    app = create_app(webserver_only=True, final=True)
    uvicorn.run(app, host=HOST, port=int(sys.argv[1]), log_level="warning")


if __name__ == "__main__":
    main()
