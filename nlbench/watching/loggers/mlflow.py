"""MLflow: a run of an experiment for each run, found again by its tag `nlbench.key`."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlbench.errors import UserError
from nlbench.files import flock
from nlbench.watching.base import Logger, Metrics, WatchedRun, numbers

if TYPE_CHECKING:
    from nlbench.results.record import RunRecord

PACKAGE = "mlflow"

# The experiment where only an address is given.
EXPERIMENT = "nlbench"

KEY = "nlbench.key"

_SQLITE = "sqlite:///"

# MLflow takes no longer values, and so many parameters in one request.
_LONGEST, _MOST = 500, 100


def open_logger(value: str, out: Path) -> Logger:
    """Return the logger. `value` is an address such as http://host:5000, or an experiment.

    Raises: UserError for a folder or a database that MLflow cannot use.
    """
    # MLflow asks a server that does not answer for many minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    # Only what is logged is sent, unless the user wants otherwise.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if re.match(r"[a-z][a-z0-9+.-]*:", value):
        return MLflow(value, os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT)
    return MLflow(None, value or EXPERIMENT)


class MLflow:
    """Sends runs to the MLflow of `address`; of None, to the one that MLflow itself would use."""

    def __init__(self, address: str | None, experiment: str):
        import mlflow

        self._mlflow = mlflow
        where = address or mlflow.get_tracking_uri()
        try:
            with _alone(where):
                self._client = mlflow.MlflowClient(where)
                self._experiment = self._id_of(experiment)
        except Exception as error:
            # A server that does not answer now is no mistake of the user.
            if re.match("https?:", where):
                raise
            raise UserError(f"the logger mlflow cannot use {where}: {error}{_fix(where)}") from None
        self._ids: dict[str, str] = {}

    def _id_of(self, experiment: str) -> str:
        """Return the id of an experiment, which is made if it is not there."""
        found = self._client.get_experiment_by_name(experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(experiment))
            except Exception:
                # Another task of the suite may have made it since.
                found = self._client.get_experiment_by_name(experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def begin(self, run: WatchedRun, fresh: bool) -> Collection[int]:
        """See Logger."""
        client = self._client
        found = client.search_runs([self._experiment], f"tags.`{KEY}` = '{run.key}'")
        if found and not fresh:
            own = found[0].info.run_id
            self._ids[run.key] = own
            client.update_run(own, status="RUNNING")
            return {metric.step for metric in client.get_metric_history(own, "loss")}

        # Metrics cannot be taken back. A run that is deleted can be restored in MLflow.
        for older in found:
            client.delete_run(older.info.run_id)
        created = client.create_run(self._experiment, tags=_tags(run), run_name=run.name)
        self._ids[run.key] = created.info.run_id
        self._log_config(run)
        return ()

    def epoch(self, run: WatchedRun, epoch: int, metrics: Metrics) -> None:
        """See Logger."""
        self._log(run, numbers(metrics), epoch)

    def ended(self, run: WatchedRun, record: RunRecord) -> None:
        """See Logger."""
        results = {f"result/{name}": value for name, value in numbers(record.metrics).items()}
        self._log(run, results, run.epochs)
        own = self._ids.pop(run.key)
        self._client.set_tag(own, "nlbench.status", record.status)
        if record.error_message:
            self._client.set_tag(own, "nlbench.error", record.error_message[:_LONGEST])
        status = "FINISHED" if record.status == "done" else "FAILED"
        self._client.set_terminated(own, status)

    def close(self) -> None:
        """See Logger. Runs that have not ended are marked as killed until they go on."""
        for own in self._ids.values():
            self._client.set_terminated(own, "KILLED")
        self._ids.clear()

    def _log(self, run: WatchedRun, values: Mapping[str, float], step: int) -> None:
        metric, now = self._mlflow.entities.Metric, int(1000 * time.time())
        entries = [metric(_as_name(name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._ids[run.key], metrics=entries)

    def _log_config(self, run: WatchedRun) -> None:
        param: Any = self._mlflow.entities.Param
        values = [param(_as_name(n), str(v)[:_LONGEST]) for n, v in run.flat().items()]
        for start in range(0, len(values), _MOST):
            self._client.log_batch(self._ids[run.key], params=values[start : start + _MOST])


@contextlib.contextmanager
def _alone(address: str) -> Iterator[None]:
    """Let one process at a time open an SQLite database: MLflow makes the tables of a new one.

    Tasks of `--shard` begin at the same time, and those that find half of the tables fail.
    """
    with contextlib.ExitStack() as stack:
        if address.startswith(_SQLITE):
            # If the lock cannot be written, neither can the database, and MLflow says so.
            with contextlib.suppress(OSError):
                lock = Path(f"{address.removeprefix(_SQLITE)}.lock")
                flock(stack.enter_context(lock.open("ab")), wait=True)
        yield


def _fix(address: str) -> str:
    """Return what to do if MLflow cannot use a database, after a full stop."""
    is_database = re.match(r"(sqlite|mysql|postgresql|mssql)\b", address) is not None
    if is_database and importlib.util.find_spec("sqlalchemy") is None:
        return ". Databases need the whole package: pip install 'nlbench[mlflow]'"
    return ""


def _tags(run: WatchedRun) -> dict[str, str]:
    """Return the tags of a run, by which MLflow filters."""
    return {
        KEY: run.key,
        "suite": run.suite,
        "row": run.row,
        "method": run.method,
        "dataset": run.dataset,
        "condition": run.condition,
        "protocol": run.protocol,
        "seed": str(run.seed),
    }


def _as_name(text: str) -> str:
    """Return a text as the name of a metric, parameter or tag."""
    return re.sub(r"[^\w./ -]+", "_", text) or "_"
