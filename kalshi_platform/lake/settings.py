"""Where the lake is: a folder (`file:///…`) or a bucket with a prefix (`s3://bucket/prefix`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from kalshi_platform.errors import ConfigurationError

MIB = 1024 * 1024


@dataclass(frozen=True)
class LakeSettings:
    """The lake's root and how to reach it.

    Without keys of its own, S3 uses the standard AWS credential chain (environment, shared files, instance role).
    """

    root: str
    endpoint_url: str | None = None  # another S3 implementation; None means AWS
    region: str = "us-east-1"
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None  # PEM file of the certificate authorities to trust; None: those of the system
    path_style: bool | None = None  # None: path style exactly when an endpoint is given
    multipart_bytes: int = 8 * MIB  # bigger objects go up in parts of this size
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
