"""A real S3 server: one Ceph monitor, one OSD in a sparse file and one RADOS gateway on loopback,
of Debian's packages, without systemd and without a disk of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.helpers.ports import free_port
from tests.helpers.s3_server import KEY, SECRET

PROGRAMS: Final = ("ceph-mon", "ceph-osd", "radosgw", "ceph", "ceph-authtool", "monmaptool")
INSTALL: Final = "apt-get install --no-install-recommends ceph-mon ceph-osd radosgw ceph-common"
DAEMONS: Final = ("mon", "osd", "rgw")

_CONF: Final = """\
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{mon}
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
keyring = {root}/keyring
run_dir = {root}/run
admin_socket = {root}/run/$name.asok
log_file = {root}/log/$name.log
mon_data = {root}/mon
osd_data = {root}/osd
osd_objectstore = bluestore
bluestore_block_size = 10737418240
bluestore_block_wal_create = false
bluestore_block_db_create = false
bluestore_cache_autotune = false
bluestore_cache_size = 134217728
osd_memory_target = 939524096
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_max_pg_per_osd = 1000
mon_data_avail_warn = 1
mon_data_avail_crit = 1
mon_initial_members = a
auth_allow_insecure_global_id_reclaim = false
ms_bind_ipv6 = false
crash_dir = {root}/crash
[client.rgw]
rgw_data = {root}/rgw
rgw_frontends = beast endpoint={address}:{port}
rgw_thread_pool_size = 64
rgw_dns_name = {address}
"""


def missing_programs() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name) is None]


class Ceph:
    """The three daemons of one small cluster below a folder; killed and started again as a test
    likes, with what they keep.
    """

    def __init__(
        self, root: Path, *, address: str = "127.0.0.1", within: Sequence[str] = ()
    ) -> None:
        """
        Args:
            address: of the gateway; the other daemons are on loopback.
            within: words before every command, which bring it into another network.
        """
        self._root, self._conf = root, str(root / "ceph.conf")
        self._address, self._within = address, tuple(within)
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._port = free_port()
        self._is_new = True
        self.endpoint = f"http://{address}:{self._port}"

    def start(self) -> None:
        """Starts those that do not run, and returns once the gateway answers."""
        if self._is_new:
            self._make()
        self._run("mon", "ceph-mon", "-i", "a")
        self._until("the monitor", lambda: self._ceph("mon", "stat").returncode == 0)
        if self._is_new:
            self._make_osd()
        self._run("osd", "ceph-osd", "-i", "0")
        self._until("the OSD", lambda: b"1 up" in self._ceph("osd", "stat").stdout)
        self._run("rgw", "radosgw", "-n", "client.rgw")
        self._until("the gateway", self._answers)
        if self._is_new:
            self._tool(
                "radosgw-admin", "-c", self._conf, "user", "create", "--uid=test",
                "--display-name=test", f"--access-key={KEY}", f"--secret-key={SECRET}",
            )  # fmt: skip
        self._is_new = False

    def kill(self, *names: str) -> None:
        """SIGKILL, at once, to these or to all."""
        for name in names or DAEMONS:
            daemon = self._daemons.pop(name, None)
            if daemon is not None:
                daemon.kill()
                daemon.wait()

    def _make(self) -> None:
        for name in ("mon", "osd", "rgw", "run", "log", "crash"):
            (self._root / name).mkdir(parents=True)
        fsid, mon, key = str(uuid.uuid4()), free_port(), str(self._root / "keyring")
        Path(self._conf).write_text(
            _CONF.format(
                fsid=fsid, mon=mon, root=self._root, port=self._port, address=self._address
            )
        )
        everything = (
            "--cap",
            "mon",
            "allow *",
            "--cap",
            "osd",
            "allow *",
            "--cap",
            "mgr",
            "allow *",
        )
        self._tool(
            "ceph-authtool", "--create-keyring", key, "--gen-key", "-n", "mon.",
            "--cap", "mon", "allow *",
        )  # fmt: skip
        self._tool("ceph-authtool", key, "--gen-key", "-n", "client.admin", *everything)
        self._tool(
            "ceph-authtool", key, "--gen-key", "-n", "client.rgw",
            "--cap", "mon", "allow rw", "--cap", "osd", "allow rwx",
        )  # fmt: skip
        monmap = str(self._root / "monmap")
        self._tool(
            "monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{mon}]", "--fsid", fsid, monmap
        )
        self._tool(
            "ceph-mon", "-c", self._conf, "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", key
        )

    def _make_osd(self) -> None:
        number, key = str(uuid.uuid4()), str(self._root / "osd" / "keyring")
        assert self._ceph("osd", "new", number).stdout.strip() == b"0"
        self._ceph(
            "auth",
            "get-or-create",
            "osd.0",
            "mon",
            "allow profile osd",
            "osd",
            "allow *",
            "-o",
            key,
        )
        self._tool("ceph-authtool", str(self._root / "keyring"), "--import-keyring", key)
        self._tool("ceph-osd", "-c", self._conf, "-i", "0", "--mkfs", "--osd-uuid", number)

    def _run(self, name: str, *words: str) -> None:
        daemon = self._daemons.get(name)
        if daemon is not None and daemon.poll() is None:
            return
        with (self._root / "log" / f"{name}.out").open("ab") as out:
            self._daemons[name] = subprocess.Popen(
                [*self._within, words[0], "-c", self._conf, "-f", *words[1:]],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def _ceph(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self._within, "ceph", "-c", self._conf, "--connect-timeout", "20", *words],
            capture_output=True,
        )

    def _tool(self, *words: str) -> None:
        done = subprocess.run([*self._within, *words], capture_output=True)
        assert done.returncode == 0, (words[:3], done.stderr[-2000:])

    def _answers(self) -> bool:
        knock = f"exec 3<> /dev/tcp/{self._address}/{self._port}"
        done = subprocess.run([*self._within, "bash", "-c", knock], capture_output=True)
        return done.returncode == 0

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 180
        while not holds():
            ended = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            assert not ended, f"{ended} ended; see {self._root}/log"
            assert time.monotonic() < deadline, f"{what} did not start; see {self._root}/log"
            time.sleep(0.2)
