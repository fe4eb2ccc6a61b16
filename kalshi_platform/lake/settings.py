"""Defines where the lake is: a folder (`file:///…`) or a bucket with a prefix (`s3://bucket/prefix`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.setting import setting

MIB = 1024 * 1024


@dataclass(frozen=True)
class LakeSettings:
    """The lake's root and how to reach it.

    Without keys of its own, S3 uses the standard AWS credential chain (environment, shared files, instance role).
    """

    root: str = field(
        metadata=setting(
            "KALSHI_LAKE_ROOT",
            "a folder (`%20` is a space) or a bucket and prefix (taken as it stands, `#` and `?` too)",
            kind="lake_root",
            default="`./data/lake` under `up`, else required",
        )
    )
    endpoint_url: str | None = field(
        default=None,
        metadata=setting(
            "KALSHI_S3_ENDPOINT_URL",
            "the address of an S3 store that is not AWS",
            kind="http_url",
            remedy="an address such as https://s3.example.com",
            default="AWS",
        ),
    )
    allow_http: bool = field(
        default=False,
        metadata=setting(
            "KALSHI_S3_ALLOW_HTTP",
            "whether that address may be http:// beyond this machine: what is stored then crosses the network in plain"
            " text",
        ),
    )
    region: str = field(
        default="us-east-1", metadata=setting("AWS_REGION", "the region of the bucket", also=("AWS_DEFAULT_REGION",))
    )
    # Declared here because the AWS client does not see what stands only in `.env`.
    access_key_id: str | None = field(
        default=None,
        repr=False,
        metadata=setting("AWS_ACCESS_KEY_ID", "the key for S3", secret=True, default="AWS's standard chain"),
    )
    secret_access_key: str | None = field(
        default=None,
        repr=False,
        metadata=setting("AWS_SECRET_ACCESS_KEY", "its secret half", secret=True, default="AWS's standard chain"),
    )
    session_token: str | None = field(
        default=None,
        repr=False,
        metadata=setting(
            "AWS_SESSION_TOKEN", "its session, if it has one", secret=True, default="AWS's standard chain"
        ),
    )
    ca_file: Path | None = field(
        default=None,
        metadata=setting(
            "AWS_CA_BUNDLE",
            "PEM file of the certificate authorities to trust for S3 alone",
            kind="ca_file",
            default="that of `KALSHI_CA_FILE`",
        ),
    )
    path_style: bool | None = None  # None: path style exactly when an endpoint is given
    # Bigger objects go up in parts of this size. No variable: S3 allows 10,000 parts, so objects up to 80 GB, and
    # smaller parts only mean more requests.
    multipart_bytes: int = 8 * MIB
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 60.0
    attempts: int = 5


@dataclass(frozen=True)
class FolderRoot:
    """A folder of this machine."""

    folder: Path


@dataclass(frozen=True)
class BucketRoot:
    """A bucket and the prefix below which the lake lives ("" or without slashes at its ends)."""

    bucket: str
    prefix: str

    def key(self, path: str) -> str:
        """The object key of a path of the lake."""
        return f"{self.prefix}/{path}" if self.prefix else path


def parse_root(root: str) -> FolderRoot | BucketRoot:
    """Return what `root` names; a plain absolute path is a folder too. Raises ConfigurationError.

    `#` and `?` are characters like others: an object's key and a folder's name may hold them. In `file://` a `%23` is
    a `#`, as in every such address; in a key it is what it is.
    """
    scheme, is_url, rest = root.partition("://")
    place, _, path = rest.partition("/")
    if is_url and scheme == "s3" and place and not set("?#@%") & set(place):
        return BucketRoot(place, path.strip("/"))
    if is_url and scheme == "file" and place in ("", "localhost") and path.strip("/"):
        return FolderRoot(Path(f"/{unquote(path)}"))
    if not is_url and Path(root).is_absolute():
        return FolderRoot(Path(root))
    raise ConfigurationError([f"{root!r} is not a lake root; use file:///absolute/path or s3://bucket/prefix"])
