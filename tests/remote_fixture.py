"""An S3 of one's own: moto's server on loopback behind a proxy that fails on demand, and machines with their caches."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time

import pytest
from fault_proxy import FaultProxy

from evalkit.datasets.build import build
from evalkit.remote import lease as leases
from evalkit.remote import objects as objects_
from evalkit.remote import uploading

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
KEY_ID = "AKIAIOSFODNN7EXAMPLE"
N = 25  # pictures of the data; 80 % of them are the split `train`
ASKED = 19


@pytest.fixture(scope="session")
def s3_server():
    pytest.importorskip("boto3", reason="moto[server] is not installed")
    pytest.importorskip("s3fs", reason="the `s3` extra is not installed")
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture(scope="session")
def grid_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    build("grid_patch", folder, n=N)
    return folder


class Storage:
    """A bucket of its own for a test, seen past the proxy."""

    def __init__(self, port: int, proxy: FaultProxy, bucket: str) -> None:
        self.proxy, self.bucket = proxy, bucket
        self.url = f"s3://{bucket}/shared"
        import boto3

        self._s3 = boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{port}", aws_access_key_id="x", aws_secret_access_key="x",
            region_name="us-east-1",
        )  # fmt: skip
        self._s3.create_bucket(Bucket=bucket)

    def names(self, part=""):
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return sorted(o["Key"] for page in pages for o in page.get("Contents", ()) if part in o["Key"])

    def get(self, key):
        return self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def put(self, key, data):
        self._s3.put_object(Bucket=self.bucket, Key=key, Body=data)

    def delete(self, key):
        self._s3.delete_object(Bucket=self.bucket, Key=key)

    def samples(self):
        """The sample ids of all rows of the one run, of rows.jsonl and of segments."""
        found = []
        for key in self.names("/rows"):
            with contextlib.suppress(self._s3.exceptions.NoSuchKey):  # put together meanwhile
                found += [json.loads(line)["sample_id"] for line in self.get(key).splitlines()]
        return found

    def end_lease(self):
        """As if the holder had been killed a long time ago."""
        (key,) = self.names("lease.json")
        found = json.loads(self.get(key))
        self.put(key, json.dumps(found | {"expires": time.time() - 3600}).encode())


@pytest.fixture(scope="session")
def s3_proxy(s3_server):
    proxy = FaultProxy(s3_server)
    yield proxy
    proxy.close()


@pytest.fixture
def s3(s3_server, s3_proxy, request, tmp_path, monkeypatch):
    proxy = s3_proxy
    proxy.fail(None)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "machine-1"))
    monkeypatch.setattr(uploading, "EVERY_S", 0.05)
    monkeypatch.setattr(uploading, "QUIET_S", 0.2)
    monkeypatch.setattr(uploading, "LONGEST_WAIT_S", 0.3)
    monkeypatch.setattr(uploading, "PATIENCE_S", 20.0)
    monkeypatch.setattr(leases, "_LOOK_AGAIN_S", 0.05)
    monkeypatch.setattr(objects_, "_FIRST_WAIT_S", 0.05)
    monkeypatch.setitem(objects_._S3_CALLS, "read_timeout", 5)
    storage = Storage(s3_server, proxy, f"b{abs(hash(request.node.name)) % 10**12}")
    proxy.seen.clear()
    proxy.failed = 0
    yield storage
    proxy.fail(None)
    proxy.conditions = True


def another_machine(monkeypatch, tmp_path, name="machine-2"):
    """Another cache, and another name of the host."""
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / name))
    monkeypatch.setattr(socket, "gethostname", lambda: name)


def words(data, results, log=None, *more, latency=0.0):
    settings = [f"latency_s={latency}", "reply=(3, 4)", *([f"log={log}"] if log else [])]
    return (
        "run", "--model", "fake", "--task", "grid_patch", "--split", "train", "--data", data, "--results", results,
        *(word for setting in settings for word in ("--set", setting)), *more,
    )  # fmt: skip


def asked(log):
    return [json.loads(line)["sample_id"] for line in log.read_text().splitlines()] if log.exists() else []


def wait_for(true, seconds=20.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def mirrored(tmp_path, name="machine-1"):
    """Every file below a machine's mirrors, relative to it."""
    top = tmp_path / name
    return {path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()}


def killed_run(s3, data, log):
    """The samples of the bucket when a run was killed in its middle."""
    program = (
        "import evalkit.remote.uploading as u; u.EVERY_S = 0.05\n"
        "from evalkit.cli import main; import sys; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", program, *map(str, words(data, s3.url, log, latency=0.05))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(s3.samples()) > 5)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return s3.samples()


def row(name, verdict="correct", **fields):
    return {"sample_id": name, "verdict": verdict, **fields}


def lines(*rows):
    return b"".join(json.dumps(one).encode() + b"\n" for one in rows)
