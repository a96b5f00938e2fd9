"""A Ray cluster of several nodes on this machine, for tests, on the loopback interface alone."""

import contextlib
import os
import secrets

OBJECT_STORE_BYTES = 80 << 20


@contextlib.contextmanager
def cluster(nodes, cpus=1):
    """Yield ray's Cluster with this many nodes beside the head, which trains nothing.

    Afterwards none of its processes is left. Its address is `cluster.address`. Only who has the
    token of this process's environment can join it.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Imported here, because ray reads these variables.
    from ray.cluster_utils import Cluster

    same = {"object_store_memory": OBJECT_STORE_BYTES, "node_ip_address": "127.0.0.1"}
    head = {**same, "num_cpus": 0, "include_dashboard": False}
    made = Cluster(initialize_head=True, connect=False, head_node_args=head)
    try:
        for _ in range(nodes):
            made.add_node(num_cpus=cpus, **same)
        yield made
    finally:
        made.shutdown()
