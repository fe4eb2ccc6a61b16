"""Both kinds of root keep the same contract."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.errors import ConfigurationError, LakeUnavailable
from kalshi_platform.lake import lifecycle
from kalshi_platform.lake.settings import BucketRoot, LakeSettings, parse_root
from kalshi_platform.lake.store import open_store, sha256
from kalshi_platform.lake.store.objects import ObjectStore, StoredObject
from kalshi_platform.lake.store.s3 import client, translated
from kalshi_platform.local.processes.ports import free_port


@pytest.fixture
def store(lake_settings: LakeSettings) -> ObjectStore:
    return open_store(lake_settings)


def test_what_is_written_is_read_listed_hashed_and_deleted(store: ObjectStore) -> None:
    assert store.read("raw/a/x") is None
    assert store.open("raw/a/x") is None
    assert sha256(store, "raw/a/x") is None
    store.write("raw/a/x", b"one")
    store.write("raw/a/x", b"three")
    store.write("raw/ab/y", b"")
    assert store.read("raw/a/x") == b"three"
    assert sha256(store, "raw/a/x") == (hashlib.sha256(b"three").hexdigest(), 5)
    assert list(store.list("raw/a")) == [StoredObject("raw/a/x", 5), StoredObject("raw/ab/y", 0)]
    assert list(store.list("raw/a/")) == [StoredObject("raw/a/x", 5)]
    assert list(store.list("nothing/")) == []
    store.delete("raw/a/x")
    store.delete("raw/a/x")
    store.delete("never/was/there")
    assert list(store.list("")) == [StoredObject("raw/ab/y", 0)]


def test_a_spooled_file_is_stored_and_the_spool_vanishes(store: ObjectStore) -> None:
    with store.staging() as folder:
        (folder / "part").write_bytes(b"content")
        store.put_files({"processed/part": folder / "part"})
        (folder / "left over").write_bytes(b"x")
    assert not folder.exists()
    assert store.read("processed/part") == b"content"
    assert [item.path for item in store.list("")] == ["processed/part"]


def test_a_fetched_object_keeps_its_content_when_it_is_replaced_or_deleted(store: ObjectStore) -> None:
    store.write("raw/part", b"one")
    with store.staging() as folder:
        assert not store.fetch("raw/another", folder / "none")
        assert store.fetch("raw/part", folder / "part")
        with (folder / "part").open("rb") as opened:
            store.write("raw/part", b"two")
            store.delete("raw/part")
            assert opened.read() == (folder / "part").read_bytes() == b"one"


def test_of_several_files_none_appears_before_all_are_stored(store: ObjectStore) -> None:
    with store.staging() as folder:
        (folder / "one").write_bytes(b"1")
        (folder / "two").write_bytes(b"")
        with pytest.raises((LakeUnavailable, FileNotFoundError)):
            store.put_files({"p/one": folder / "one", "p/two": folder / "two", "p/three": folder / "not there"})
        assert list(store.list("")) == []
        store.put_files({"p/one": folder / "one", "p/two": folder / "two"})
    assert (store.read("p/one"), store.read("p/two")) == (b"1", b"")


def test_an_upload_in_parts_that_fails_is_ended(s3_settings: LakeSettings, s3_client: Any, s3_bucket: str) -> None:
    store = open_store(s3_settings)
    with store.staging() as folder:
        (folder / "one").write_bytes(b"1")
        with pytest.raises(FileNotFoundError):
            store.put_files({"p/one": folder / "one", "p/two": folder / "not there"})
    assert "Uploads" not in s3_client.list_multipart_uploads(Bucket=s3_bucket)


def test_any_range_of_an_object_can_be_read(store: ObjectStore) -> None:
    content = os.urandom(3 * 1024 * 1024 + 17)
    store.write("big", content)
    stream = store.open("big")
    assert stream is not None
    with stream:
        assert stream.seek(0, os.SEEK_END) == len(content)
        assert stream.read(1) == b""
        stream.seek(-10, os.SEEK_END)
        assert stream.read() == content[-10:]
        stream.seek(1_000_000)
        assert stream.read(2_000_000) == content[1_000_000:3_000_000]
        assert stream.tell() == 3_000_000
    assert sha256(store, "big") == (hashlib.sha256(content).hexdigest(), len(content))


def test_a_big_file_goes_up_in_parts(s3_settings: LakeSettings, s3_client: Any, s3_bucket: str) -> None:
    five_mib = 5 * 1024 * 1024  # the smallest part that S3 takes
    store = open_store(replace(s3_settings, multipart_bytes=five_mib))
    content = os.urandom(2 * five_mib + 1)
    with store.staging() as folder:
        (folder / "part").write_bytes(content)
        store.put_files({"raw/part": folder / "part"})
    assert sha256(store, "raw/part") == (hashlib.sha256(content).hexdigest(), len(content))
    # An entity tag of several parts ends with their number.
    assert s3_client.head_object(Bucket=s3_bucket, Key="some/prefix/raw/part")["ETag"].endswith('-3"')


def test_an_object_that_changes_under_a_reader_is_not_mixed(s3_settings: LakeSettings) -> None:
    store = open_store(s3_settings)
    store.write("big", b"a" * 3_000_000)
    stream = store.open("big")
    assert stream is not None
    with stream:
        assert stream.read(1) == b"a"
        store.write("big", b"b" * 3_000_000)
        with pytest.raises(LakeUnavailable, match="PreconditionFailed"):
            stream.read(2_999_999)


def test_a_bucket_that_is_not_there_is_a_matter_of_configuration(s3_settings: LakeSettings, tmp_path: Path) -> None:
    store = open_store(replace(s3_settings, root="s3://no-such-bucket/x"))
    (tmp_path / "f").write_bytes(b"x")
    for action in (
        lambda: store.read("a"),
        lambda: store.write("a", b"x"),
        lambda: store.put_files({"a": tmp_path / "f"}),
        lambda: list(store.list("")),
        lambda: store.delete("a"),
    ):
        with pytest.raises(ConfigurationError, match="does not exist; create the bucket"):
            action()


def test_missing_credentials_name_the_remedy(s3_settings: LakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    store = open_store(replace(s3_settings, access_key_id=None, secret_access_key=None))
    with pytest.raises(ConfigurationError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        store.read("a")


def test_a_server_that_is_away_is_transient() -> None:
    settings = LakeSettings(
        "s3://bucket", f"http://127.0.0.1:{free_port()}", access_key_id="k", secret_access_key="hidden", attempts=1
    )
    with pytest.raises(LakeUnavailable) as caught:
        open_store(settings).read("a")
    assert "hidden" not in str(caught.value)


def test_a_wrong_endpoint_is_a_matter_of_configuration() -> None:
    with pytest.raises(ConfigurationError, match="S3 client cannot be made"):
        open_store(LakeSettings("s3://bucket", "not an address"))


def test_a_folder_that_is_a_file_is_a_matter_of_configuration(tmp_path: Path) -> None:
    (tmp_path / "lake").write_bytes(b"")
    store = open_store(LakeSettings((tmp_path / "lake").as_uri()))
    with pytest.raises(ConfigurationError, match="make it writable or set another"):
        store.write("raw/x", b"y")


def test_spools_of_killed_exports_are_removed_after_a_day(tmp_path: Path) -> None:
    store = open_store(LakeSettings(tmp_path.as_uri()))
    old, recent = tmp_path / ".spool" / "old", tmp_path / ".spool" / "recent"
    for folder in (old, recent):
        folder.mkdir(parents=True)
        (folder / "part-0000.parquet").write_bytes(b"x")
    moment = recent.stat().st_mtime - 90_000
    os.utime(old, (moment, moment))
    with store.staging():
        assert not old.exists()
        assert recent.exists()


def test_threads_that_write_at_once_do_not_mind_each_others_staging(tmp_path: Path) -> None:
    store = open_store(LakeSettings(tmp_path.as_uri()))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.write(f"raw/{number}", b"x"), range(64)))
    assert len(list((tmp_path / "raw").iterdir())) == 64


def test_a_store_without_the_newer_checksums_keeps_the_lake_and_its_lifecycle(
    s3_settings: LakeSettings, old_s3_endpoint: str
) -> None:
    five_mib = 5 * 1024 * 1024
    settings = replace(s3_settings, endpoint_url=old_s3_endpoint, multipart_bytes=five_mib)
    store = open_store(settings)
    content = os.urandom(five_mib + 1)
    with store.staging() as folder:
        (folder / "part").write_bytes(content)
        store.put_files({"raw/in-parts": folder / "part"})
        (folder / "one").write_bytes(b"1")
        store.put_files({"raw/one": folder / "one"})
        store.put_files({"raw/one": folder / "one", "raw/two": folder / "one"})
    assert sha256(store, "raw/in-parts") == (hashlib.sha256(content).hexdigest(), len(content))
    store.write("raw/manifest", b"{}")
    assert store.read("raw/manifest") == b"{}"
    store.delete("raw/manifest")
    assert [item.path for item in store.list("raw/")] == ["raw/in-parts", "raw/one", "raw/two"]
    assert lifecycle.apply(settings).differences == ()


def test_what_a_store_refuses_is_reported_in_its_own_words(
    s3_settings: LakeSettings, s3_bucket: str, old_s3_endpoint: str
) -> None:
    settings = replace(s3_settings, endpoint_url=old_s3_endpoint)
    root = parse_root(settings.root)
    assert isinstance(root, BucketRoot)
    with (
        pytest.raises(ConfigurationError, match=r"NotImplemented: A header you provided implies functionality"),
        translated(root, settings),
    ):
        client(settings).put_object(Bucket=s3_bucket, Key="x", Body=b"", ChecksumAlgorithm="CRC32")
