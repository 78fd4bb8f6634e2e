"""The process of one flow run: Prefect's engine, which here takes no result from where the server says one lies.

`python -m deployments.flow_process`, started by the worker. A state that the server gives may name a file, a storage
and the way to read it, and reading a pickle runs code. Our flows keep no results: nothing is ever to be read, and
nothing written to a storage of the server's choice.
"""

from __future__ import annotations

import runpy
from typing import Any, NoReturn

from prefect import results

from tasks.core.errors import Refused


def read_no_results() -> None:
    """Have Prefect refuse to read any result, and ask the server for no storage of results."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise Refused(
            "Prefect's server says that this run has a result already: it is not read", hint="start a new run"
        )

    async def refuse_async(*_: Any, **__: Any) -> NoReturn:
        refuse()

    async def nothing_async() -> None:
        return None

    for name, replacement in (
        ("_read", refuse),
        ("_aread", refuse_async),
        ("_from_metadata", classmethod(refuse_async)),
    ):
        getattr(
            results.ResultStore, name
        )  # a version of Prefect that calls it otherwise is told here, not by an attack
        setattr(results.ResultStore, name, replacement)
    for name, nothing in (
        ("_read_server_default_result_storage_block_id", lambda: None),
        ("_aread_server_default_result_storage_block_id", nothing_async),
    ):
        getattr(results, name)
        setattr(results, name, nothing)


if __name__ == "__main__":
    read_no_results()
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
