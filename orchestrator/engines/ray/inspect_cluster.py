"""Asks every machine of a cluster what a sweep needs of it: `python -m
orchestrator.engines.ray.inspect_cluster ADDRESS OUT SECONDS`.

It runs as a process of its own, because Ray may keep who asks waiting, or end it. It prints lines
of JSON: first the machines as Ray knows them, then the answer of each as it comes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout, suppress
from typing import Any, Final

MOST_AT_ONCE: Final = 256
PACKAGES: Final = ("torch", "numpy")


class Probe:
    """What runs on each machine. Ray sends a class of the main module as it is written here, so
    that it also runs where this project is another one or is missing; hence the imports inside.
    """

    def clock(self) -> float:
        """Returns the time of day, in seconds."""
        import time

        return time.time()

    def facts(self, dashboard: str, packages: tuple[str, ...], seconds: float) -> dict[str, Any]:
        """Returns what this machine has.

        Args:
            dashboard: host:port of the head's own; empty on other machines.
            seconds: how long a part of it may take.
        """
        import platform

        import ray

        return {
            "versions": {
                "Python": platform.python_version(),
                "Ray": ray.__version__,
                **{name: self._version(name) for name in packages},
            },
            "project": self._project(),
            "gpus": self._gpus(seconds),
            "token": self._token(),
            "cache": self._cache(),
            "dashboard": self._dashboard(dashboard) if dashboard else None,
        }

    def _version(self, name: str) -> str | None:
        from importlib import metadata

        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    def _project(self) -> dict[str, str]:
        try:
            from orchestrator.sweeps.folder import code_hash

            return {"version": f"{self._version('one-bit-orchestrator')}+{code_hash()[:12]}"}
        except Exception as error:
            return {"problem": f"{type(error).__name__}: {error}"}

    def _gpus(self, seconds: float) -> dict[str, Any]:
        """What torch sees in a process that Ray has hidden no GPU from, as it does from this."""
        import json
        import os
        import subprocess
        import sys

        import psutil

        environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        try:
            # Of the node's own process, which started this one.
            given = psutil.Process(os.getppid()).environ().get("CUDA_VISIBLE_DEVICES")
        except psutil.Error:
            given = None
        environment |= {} if given is None else {"CUDA_VISIBLE_DEVICES": given}
        code = (
            "import json, torch; print(json.dumps([torch.cuda.get_device_name(i) for i in"
            " range(torch.cuda.device_count())]))"
        )
        try:
            done = subprocess.run(
                [sys.executable, "-c", code],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=True,
            )
            return {"names": json.loads(done.stdout)}
        except subprocess.CalledProcessError as error:
            lines = error.stderr.strip().splitlines() or ["it ended"]
            return {"problem": lines[-1]}
        except subprocess.TimeoutExpired:
            return {"problem": f"no answer within {seconds:g} s"}
        except (OSError, ValueError) as error:
            return {"problem": str(error)}

    def _token(self) -> dict[str, Any]:
        """Where the access token is and who may read it; nothing of the token itself."""
        import os
        from pathlib import Path

        named = os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")
        found: dict[str, Any] = {"variable": bool(os.environ.get("RAY_AUTH_TOKEN")), "place": named}
        try:
            found["place"] = str(Path(named).expanduser())
            found["mode"] = os.stat(found["place"]).st_mode & 0o777  # noqa: PTH116
        except (OSError, RuntimeError):
            found["mode"] = None
        return found

    def _cache(self) -> dict[str, Any]:
        import shutil

        try:
            from orchestrator.storage.user_files import cache_root

            root = cache_root()
            place = next(folder for folder in (root, *root.parents) if folder.exists())
            return {"place": str(root), "free": shutil.disk_usage(place).free}
        except Exception as error:
            return {"problem": str(error)}

    def _dashboard(self, dashboard: str) -> int | None:
        try:
            from orchestrator.engines.ray.joining import http_status

            return http_status(dashboard)
        except ImportError:
            return None

    def show(self, token: Any, store: Any) -> None:
        """Proves that this machine sees the store; raises as orchestrator.engines.ray.node.Token
        does.
        """
        from orchestrator.engines.ray.node import host_name

        token.show(store, host_name())

    def host(self) -> str:
        """Returns the name under which it shows that."""
        from orchestrator.engines.ray.node import host_name

        return host_name()


def inspect(address: str, out: str, seconds: float) -> None:
    """Prints what the machines of the Ray at `address` answer within `seconds`.

    Args:
        out: where sweeps are kept, which each machine is to see.
    """
    import ray

    from orchestrator.engines.ray.node import Token
    from orchestrator.storage.files import StorageError
    from orchestrator.storage.opening import open_store

    with redirect_stdout(sys.stderr):
        context = ray.init(address=address, log_to_driver=False, logging_level="CRITICAL")
    deadline = time.monotonic() + seconds
    dashboard = (context.dashboard_url or "").removeprefix("http://")
    nodes = [_node(row) for row in ray.nodes()]
    store, token, problem = None, None, None
    try:
        store = open_store(out)
        token = Token.put(store)
    except StorageError as error:
        problem = str(error)
    _tell({"nodes": nodes, "dashboard": dashboard, "store": problem})
    try:
        alive = [node for node in nodes if node["alive"]]
        with ThreadPoolExecutor(min(len(alive), MOST_AT_ONCE)) as pool:
            for answer in pool.map(
                lambda node: _ask(node, dashboard, token, store, deadline), alive
            ):
                _tell(answer)
    finally:
        if store is not None and token is not None:
            with suppress(StorageError):
                store.remove(token.name)


def _node(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": row["NodeID"],
        "host": row["NodeManagerHostname"],
        "address": row["NodeManagerAddress"],
        "alive": row["Alive"],
        "cpus": row["Resources"].get("CPU", 0.0),
        "gpus": row["Resources"].get("GPU", 0.0),
        "head": "node:__internal_head__" in row["Resources"],
    }


def _ask(
    node: Mapping[str, Any], dashboard: str, token: Any, store: Any, deadline: float
) -> dict[str, Any]:
    """Returns what one machine answers until the deadline; `silent` where it does not, `problem`
    where it cannot.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def get(answer: Any) -> Any:
        return ray.get(answer, timeout=max(0.1, deadline - time.monotonic()))

    found: dict[str, Any] = {"id": node["id"]}
    there = NodeAffinitySchedulingStrategy(node["id"], soft=False)
    try:
        # num_cpus=0: a machine that is busy answers too.
        probe = ray.remote(num_cpus=0)(Probe).options(scheduling_strategy=there).remote()
        get(probe.clock.remote())
        sent = time.time()
        theirs = get(probe.clock.remote())
        # Its clock is ahead of this one by something between the two.
        found["ahead"] = [theirs - time.time(), theirs - sent]
        left = max(1.0, (deadline - time.monotonic()) * 0.8)
        own = dashboard if node["head"] else ""
        found["facts"] = get(probe.facts.remote(own, PACKAGES, left))
        if token is not None:
            found["store"] = _prove(probe, token, store, get)
    except ray.exceptions.GetTimeoutError:
        found["silent"] = True
    except ray.exceptions.RayError as error:
        found["problem"] = _last_line(error)
    return found


def _prove(probe: Any, token: Any, store: Any, get: Any) -> str | None:
    """Returns why a machine does not see the store; None if it does."""
    import ray

    from trainers.errors import UserError

    try:
        get(probe.show.remote(token, store))
        token.check(store, get(probe.host.remote()))
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        return str(cause) if isinstance(cause, UserError) else f"cannot look: {_last_line(cause)}"
    except UserError as error:
        return str(error)
    return None


def _last_line(error: BaseException) -> str:
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[-1][:300]


def _tell(answer: Mapping[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    inspect(sys.argv[1], sys.argv[2], float(sys.argv[3]))
    sys.stdout.flush()
    # Ray waits for a machine that is silent before it lets go.
    import os

    os._exit(0)
