"""How many worker groups a cluster holds, on its nodes and on those that it may still add."""

from __future__ import annotations

from orchestrator.engines.ray.autoscaler import NODE_TYPES
from orchestrator.engines.ray.cluster import Cluster, ClusterError
from search_spaces.reading.config import ResourcesConfig


def groups_that_fit(cluster: Cluster, resources: ResourcesConfig) -> int:
    """Returns how many worker groups the cluster can hold at once, at most
    resources.max_concurrent: on its nodes, and on those that its autoscaler may add.

    Raises:
        ClusterError: not one; the message says what is missing.
    """
    ranks, cpus, gpus = resources.workers, resources.cpus_per_worker, resources.gpus_per_worker
    here = _places_here(cluster, resources)
    fit = max(here, _places_grown(cluster, resources)) // ranks
    if fit >= 1:
        return min(fit, resources.max_concurrent)
    each = f"{cpus} CPU(s)" + (f" and {gpus:g} GPU(s)" if gpus else "")
    short = f"one worker group of resources.workers = {ranks} needs {ranks * cpus} CPU(s)" + (
        f" and {ranks * gpus:g} GPU(s)" if gpus else ""
    )
    if ranks * cpus <= cluster.cpus and ranks * gpus <= cluster.gpus:
        problem = (
            f"{short}, {each} for each rank on one node; {cluster} in all, but its nodes have"
            f" places for {here} rank(s) only"
        )
    else:
        problem = f"{short}; {cluster} in all"
    if cluster.growth.most:
        problem += (
            f", and with the {cluster.growth.most} worker node(s) that its autoscaler may add it"
            " would not hold it either"
        )
    advice = "Lower resources.workers, resources.cpus_per_worker or resources.gpus_per_worker."
    if not cluster.is_embedded and not cluster.growth.most:
        advice += (
            " If the cluster grows by itself, run this on its head, or say to what it grows:"
            f" export {NODE_TYPES}='{{gpu: {{resources: {{CPU: 4, GPU: 1}}, max_workers: 8}}}}'"
        )
    raise ClusterError(f"{problem}. {advice}")


def awaited(cluster: Cluster, resources: ResourcesConfig, groups: int) -> str | None:
    """Returns what the sweep says before it waits for nodes that the autoscaler adds; None if its
    worker groups fit on those that are there.
    """
    missing = groups * resources.workers - _places_here(cluster, resources)
    if missing <= 0:
        return None
    kind = "GPU" if resources.gpus_per_worker else "CPU"
    return (
        f"waiting for {missing} {kind} worker{'s' if missing > 1 else ''} that the cluster is to"
        f" add, up to {resources.start_timeout:g} s (resources.start_timeout)"
    )


def _places(cpus: float, gpus: float, resources: ResourcesConfig) -> int:
    """Returns how many ranks a node can hold."""
    by_cpus = cpus // resources.cpus_per_worker
    each = resources.gpus_per_worker
    return int(min(by_cpus, gpus // each) if each else by_cpus)


def _places_here(cluster: Cluster, resources: ResourcesConfig) -> int:
    sizes = cluster.sizes or ((cluster.cpus, cluster.gpus),)
    return sum(_places(cpus, gpus, resources) for cpus, gpus in sizes)


def _places_grown(cluster: Cluster, resources: ResourcesConfig) -> int:
    """Returns how many ranks the cluster can hold once the autoscaler has added what it may."""
    head = _places(*cluster.head, resources) if cluster.head else 0
    places: list[int] = []
    for kind in cluster.growth.types:
        if kind.cpus is None or kind.gpus is None:
            # Nobody said what such a machine has: one rank is what is asked of it, and where it
            # cannot hold that the wait for it ends with a message.
            places += [1] * kind.most
        else:
            places += [_places(kind.cpus, kind.gpus, resources)] * kind.most
    return head + sum(sorted(places, reverse=True)[: cluster.growth.most])
