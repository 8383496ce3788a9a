"""A local cluster of Ray that serves `deploy/ray/serve.yaml`: `python -m tests.ray.cluster`.

It runs until its standard input ends. Each line of that is a command; each is answered by a line of
JSON on standard output.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.cluster_utils import Cluster
from ray.serve._private.api import serve_start
from ray.serve._private.constants import SERVE_NAMESPACE
from ray.serve.schema import ServeDeploySchema

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "ray" / "serve.yaml"
# More than the machine has: the replicas must fit, not be fast.
_CPUS = 8


def configuration(options: argparse.Namespace, release: str) -> dict[str, Any]:
    """Return the shipped configuration, but for addresses, models and replicas of resnet50."""
    found: dict[str, Any] = yaml.safe_load(CONFIGURATION.read_text("utf-8"))
    found["grpc_options"]["port"] = options.grpc_port
    found["http_options"]["port"] = options.http_port
    (application,) = found["applications"]
    application["args"].update(models=str(options.models), release=release)
    number = {"min_replicas": options.replicas, "max_replicas": options.replicas}
    cores = {"num_cpus": options.cores}
    application["deployments"].append(
        {"name": "resnet50", "autoscaling_config": number, "ray_actor_options": cores}
    )
    return found


class _Served:
    """The cluster, with the application."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        head = {"num_cpus": _CPUS, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [self._cluster.add_node(num_cpus=_CPUS) for _ in range(options.nodes)]
        ray.init(address=self._cluster.address, namespace=SERVE_NAMESPACE, log_to_driver=False)
        read = self._read("1")
        self._client = serve_start(
            http_options=read.http_options.model_dump(exclude_unset=True)
            | {"location": read.proxy_location},
            grpc_options=read.grpc_options.model_dump(exclude_unset=True),
        )
        self.deploy("1")

    def _read(self, release: str) -> ServeDeploySchema:
        return ServeDeploySchema.model_validate(configuration(self._options, release))

    def deploy(self, release: str) -> None:
        """Deploy a release; returns once all replicas are of it and all proxies know them."""
        before = {each["pid"] for each in self.replicas()}
        self._client.deploy_apps(self._read(release))
        self._until_without(before)
        self._client.wait_for_proxies_serving(wait_for_applications_running=True)

    def replicas(self) -> Iterator[dict[str, Any]]:
        """Yield each replica that has a process: its deployment, process and node."""
        applications = self._client.get_serve_details()["applications"]
        if "visavis" not in applications:
            return
        for name, deployment in applications["visavis"]["deployments"].items():
            for replica in deployment["replicas"]:
                # A replica that starts has none yet.
                if pid := replica.get("pid"):
                    yield {"deployment": name, "pid": pid, "node": replica["node_id"]}

    def kill_replica(self, deployment: str) -> None:
        """Kill one replica of a deployment; returns once it has been replaced."""
        pids = [each["pid"] for each in self.replicas() if each["deployment"] == deployment]
        os.kill(pids[0], signal.SIGKILL)
        self._until_without({pids[0]})

    def kill_node(self) -> int:
        """Kill the node, other than the head, with most replicas; returns how many it had.

        By then they have been replaced.
        """
        pids: dict[Any, set[int]] = {node: set() for node in self._nodes}
        for node in self._nodes:
            pids[node] = {each["pid"] for each in self.replicas() if each["node"] == node.node_id}
        victim = max(pids, key=lambda node: len(pids[node]))
        self._cluster.remove_node(victim, allow_graceful=False)
        self._nodes.remove(victim)
        self._until_without(pids[victim])
        return len(pids[victim])

    def _until_without(self, gone: set[int]) -> None:
        """Wait until other processes run all replicas. Raises RuntimeError if none can."""
        while (status := self._status()) != "RUNNING" or gone & {e["pid"] for e in self.replicas()}:
            if status == "DEPLOY_FAILED":
                raise RuntimeError("the application can't be deployed")
            time.sleep(0.2)

    def _status(self) -> str:
        if not (statuses := self._client.list_serve_statuses()):
            return "NOT_STARTED"
        (status,) = statuses
        unhealthy = [each for each in status.deployment_statuses if each.status != "HEALTHY"]
        if status.app_status.status == "RUNNING" and unhealthy:
            return "DEPLOYING"
        return str(status.app_status.status.value)


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--nodes", type=int, default=2, help="besides the head")
    parser.add_argument("--replicas", type=int, default=2, help="of resnet50")
    parser.add_argument("--cores", type=int, default=1, help="of each of them")
    served = _Served(parser.parse_args())
    _say("ready")
    for line in sys.stdin:
        name, *arguments = line.split()
        result = getattr(served, name)(*arguments)
        _say(list(result) if isinstance(result, Iterator) else result)
    os._exit(0)


def _say(what: object) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
