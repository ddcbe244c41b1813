"""A study on a database server: operations wait while it restarts, heartbeats tell who is alive."""

from __future__ import annotations

import functools
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError, ProgrammingError

logger = logging.getLogger(__name__)
HEARTBEAT, RETRIES, FIRST_TRIES = 60, 2, 4
# How long a server may be away: a restart takes seconds, an upgrade minutes.
AWAY = 600.0


class ServerStorage(RDBStorage):
    """Optuna's storage on a server whose connections may break at any time.

    A trial whose worker is silent for two heartbeats is failed and its values are tried again.

    Args:
        url: of the database.
    """

    def __init__(self, url: str) -> None:
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            retry = RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
        options: dict[str, Any] = {
            "engine_kwargs": {"pool_pre_ping": True},
            "heartbeat_interval": HEARTBEAT,
            "grace_period": 2 * HEARTBEAT,
            "heartbeat_stale_trial_callback": retry,
        }
        end, left, lost = time.monotonic() + AWAY, FIRST_TRIES, False
        while True:
            try:
                with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
                    super().__init__(url, **options)
                return
            except (IntegrityError, ProgrammingError, StorageInternalError, OperationalError) as error:
                # Of several first workers one makes the tables; the others stumble over half of them. A server that
                # was there and went away comes back; one that never was is soon told.
                left, lost = left - 1, lost or (isinstance(error, OperationalError) and error.connection_invalidated)
                if time.monotonic() > end or not (left or lost):
                    raise
            time.sleep(1.0)


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*given: Any, **options: Any) -> Any:
        end, pause, again = time.monotonic() + AWAY, 0.1, False
        while True:
            try:
                return method(*given, **options)
            except UpdateFinishedTrialError:
                # The connection broke after the first attempt had been committed.
                if again:
                    return True
                raise
            except (StorageInternalError, OperationalError, InterfaceError) as error:
                if time.monotonic() > end:
                    raise
                if not again:
                    logger.warning("the database is away (%s): waiting for it", str(error).splitlines()[0])
            time.sleep(pause)
            pause, again = min(2 * pause, 5.0), True

    return call


# Optuna's cache before every database calls these, some of them under names of their own.
_INNER = ("_create_new_trial", "_get_trials", "_set_trial_param", "_get_best_trial_id", "_get_stale_trial_ids")
for _name in (*BaseStorage.__abstractmethods__, *_INNER, "record_heartbeat"):
    setattr(ServerStorage, _name, _patient(vars(RDBStorage)[_name]))


@contextmanager
def beating(storage: BaseStorage, trial_id: int) -> Iterator[None]:
    """Send heartbeats of a trial while the block runs; nothing where the storage, as it was opened, has none."""
    if not isinstance(storage, ServerStorage):
        yield
        return
    storage.record_heartbeat(trial_id)
    done = threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT):
            storage.record_heartbeat(trial_id)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
