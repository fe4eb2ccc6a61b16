"""The lake in a bucket. Only this module and `lifecycle` speak to S3; `client` and `translated` serve both."""

from __future__ import annotations

import base64
import hashlib
import io
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

import boto3
import botocore.config
import botocore.exceptions
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig

from kalshi_platform.errors import ConfigurationError, LakeArchived, LakeUnavailable
from kalshi_platform.lake.settings import BucketRoot, LakeSettings
from kalshi_platform.lake.store.objects import StoredObject
from kalshi_platform.surroundings import LOOPBACK, system_ca_file

_READ_AHEAD_BYTES = 1024 * 1024
_REJECTED_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AuthFailure")
_MISSING = ("NoSuchKey", "404", "NotFound")
_SENTENCE_LENGTH = 300


def client(settings: LakeSettings) -> Any:
    """An S3 client. Raises ConfigurationError for an endpoint that is no address."""
    is_other_store = settings.endpoint_url is not None
    path_style = settings.path_style if settings.path_style is not None else is_other_store
    # Many stores refuse the checksums and trailers that AWS has taken since 2025, or do not answer with them.
    checksums = "when_required" if is_other_store else "when_supported"
    try:
        made = boto3.session.Session().client(
            "s3",
            endpoint_url=settings.endpoint_url,
            verify=None if settings.ca_file is None else str(settings.ca_file),
            region_name=settings.region,
            aws_access_key_id=settings.access_key_id,
            aws_secret_access_key=settings.secret_access_key,
            aws_session_token=settings.session_token,
            config=botocore.config.Config(
                connect_timeout=settings.connect_timeout_s,
                read_timeout=settings.read_timeout_s,
                # The proxies of the environment are for the world outside, not for a store on this machine.
                proxies={} if urlsplit(settings.endpoint_url or "").hostname in LOOPBACK else None,
                retries={"max_attempts": settings.attempts, "mode": "standard"},
                s3={"addressing_style": "path" if path_style else "auto"},
                request_checksum_calculation=checksums,
                response_checksum_validation=checksums,
            ),
        )
    except (ValueError, botocore.exceptions.BotoCoreError) as error:
        raise ConfigurationError([f"the S3 client cannot be made: {error}"]) from error
    if is_other_store:
        made.meta.events.register("before-call.s3.PutBucketLifecycleConfiguration", _with_md5)
    return made


@contextmanager
def translated(root: BucketRoot, settings: LakeSettings) -> Iterator[None]:
    """Turn what boto3 raises into this package's errors, naming the remedy."""
    where = f"s3://{root.bucket}" + (f" at {settings.endpoint_url}" if settings.endpoint_url else "")
    try:
        yield
    except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError) as error:
        raise ConfigurationError(
            [f"no credentials for {where}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"]
        ) from error
    except botocore.exceptions.ClientError as error:
        raise _from_answer(error, where) from error
    except Boto3Error as error:  # an upload's own wrapper holds the answer as its cause
        cause = error.__cause__ or error.__context__
        if isinstance(cause, botocore.exceptions.ClientError):
            raise _from_answer(cause, where) from error
        raise LakeUnavailable(f"{where}: {error}") from error
    except botocore.exceptions.ParamValidationError as error:
        raise ConfigurationError([f"{where} is not usable: {error}"]) from error
    except botocore.exceptions.SSLError as error:
        remedy = "where a proxy inspects TLS, set KALSHI_CA_FILE to the PEM file of its certificate authority"
        raise LakeUnavailable(f"{where}: {error} ({remedy})") from error
    except botocore.exceptions.BotoCoreError as error:
        raise LakeUnavailable(f"{where}: {error}") from error


def error_code(error: botocore.exceptions.ClientError) -> str:
    """The service's word for what went wrong."""
    return str(error.response.get("Error", {}).get("Code", ""))


class S3Store:
    """`s3://bucket/prefix`."""

    def __init__(self, root: BucketRoot, settings: LakeSettings) -> None:
        self._root = root
        self._settings = settings
        self._client = client(settings)
        # Two threads at most: memory stays below a few parts, and exports run beside each other already.
        self._transfer = TransferConfig(
            multipart_threshold=settings.multipart_bytes,
            multipart_chunksize=settings.multipart_bytes,
            max_concurrency=2,
        )

    @property
    def root(self) -> str:
        """Bucket and prefix as an s3:// URL."""
        return f"s3://{self._root.bucket}/{self._root.prefix}".rstrip("/")

    @property
    def scan_options(self) -> Mapping[str, str]:
        """Region, endpoint and keys under the names that Polars takes; without keys it finds them as AWS's SDK does.

        Raises ConfigurationError where certificate authorities are set that Polars would not trust.
        """
        settings = self._settings
        endpoint = settings.endpoint_url
        is_encrypted = endpoint is None or not endpoint.startswith("http://")
        if settings.ca_file is not None and is_encrypted and system_ca_file() is None:
            # Set here, it would change what other libraries of the process trust.
            raise ConfigurationError(
                [
                    "scans read S3 through Polars, which trusts the file of SSL_CERT_FILE and no other; set it to"
                    f" {settings.ca_file} before the first scan, or read the rows as a frame"
                ]
            )
        is_path_style = settings.path_style if settings.path_style is not None else endpoint is not None
        options = {
            "aws_region": settings.region,
            "aws_endpoint_url": endpoint,
            "aws_allow_http": None if is_encrypted else "true",
            "aws_virtual_hosted_style_request": "false" if is_path_style else None,
            "aws_access_key_id": settings.access_key_id,
            "aws_secret_access_key": settings.secret_access_key,
            "aws_session_token": settings.session_token,
        }
        return {name: value for name, value in options.items() if value is not None}

    def address(self, path: str) -> str:
        """The s3:// URL of an object."""
        return f"s3://{self._root.bucket}/{self._root.key(path)}"

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Give a temporary folder for files that `put_files` then uploads."""
        with tempfile.TemporaryDirectory(prefix="kalshi-platform-lake-") as folder:
            yield Path(folder)

    def put_files(self, files: Mapping[str, Path]) -> None:
        """Upload files to their paths; they appear once all are uploaded, and replace what was there."""
        with self._errors():
            if len(files) == 1:
                ((path, file),) = files.items()
                self._client.upload_file(str(file), self._root.bucket, self._root.key(path), Config=self._transfer)
                return
            # An upload in parts is not to be seen before it is completed, so that all are completed together.
            uploads: list[_Upload] = []
            try:
                for path, file in files.items():
                    uploads.append(_Upload(self._client, self._root.bucket, self._root.key(path)))
                    uploads[-1].send(file, self._settings.multipart_bytes)
                for upload in uploads:
                    upload.complete()
            except BaseException:
                for upload in uploads:
                    upload.abort()
                raise

    def write(self, path: str, content: bytes) -> None:
        """Put an object of these bytes at `path`."""
        with self._errors():
            self._client.put_object(Bucket=self._root.bucket, Key=self._root.key(path), Body=content)

    def read(self, path: str) -> bytes | None:
        """Return an object's bytes, None where there is none."""
        with self._errors():
            try:
                answer = self._client.get_object(Bucket=self._root.bucket, Key=self._root.key(path))
            except botocore.exceptions.ClientError as error:
                if error_code(error) in _MISSING:
                    return None
                raise
            return bytes(answer["Body"].read())

    def open(self, path: str) -> BinaryIO | None:
        """Open an object for reading by ranges, None where there is none."""
        key = self._root.key(path)
        with self._errors():
            try:
                answer = self._client.head_object(Bucket=self._root.bucket, Key=key)
            except botocore.exceptions.ClientError as error:
                if error_code(error) in _MISSING:
                    return None
                raise
        ranges = _Ranges(self, key, int(answer["ContentLength"]), str(answer["ETag"]))
        return cast(BinaryIO, io.BufferedReader(ranges, _READ_AHEAD_BYTES))

    def fetch(self, path: str, file: Path) -> bool:
        """Download an object to a new file, False where there is none."""
        with self._errors():
            try:
                self._client.download_file(self._root.bucket, self._root.key(path), str(file), Config=self._transfer)
            except botocore.exceptions.ClientError as error:
                if error_code(error) in _MISSING:
                    return False
                raise
            return True

    def delete(self, path: str) -> None:
        """Delete an object; none there is no error."""
        with self._errors():
            self._client.delete_object(Bucket=self._root.bucket, Key=self._root.key(path))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects whose paths begin with `prefix`, by path."""
        offset = len(self._root.key(""))
        with self._errors():
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._root.bucket, Prefix=self._root.key(prefix)
            )
            found = [
                StoredObject(item["Key"][offset:], int(item["Size"]))
                for page in pages
                for item in page.get("Contents", ())
            ]
        yield from found

    def get_range(self, key: str, etag: str, start: int, end: int) -> bytes:
        """Bytes [start, end) of the object as it was when it was opened."""
        with self._errors():
            answer = self._client.get_object(
                Bucket=self._root.bucket, Key=key, Range=f"bytes={start}-{end - 1}", IfMatch=etag
            )
            return bytes(answer["Body"].read())

    def _errors(self) -> Any:
        return translated(self._root, self._settings)


class _Upload:
    """An object that goes up in parts and appears when it is completed. A lifecycle rule ends those left behind."""

    def __init__(self, s3: Any, bucket: str, key: str) -> None:
        self._s3 = s3
        self._where = {"Bucket": bucket, "Key": key}
        self._where["UploadId"] = s3.create_multipart_upload(**self._where)["UploadId"]
        self._parts: list[dict[str, Any]] = []
        self._completed = False

    def send(self, file: Path, part_bytes: int) -> None:
        with file.open("rb") as stream:
            # Every file has at least one part, be it empty.
            while (content := stream.read(part_bytes)) or not self._parts:
                number = len(self._parts) + 1
                answer = self._s3.upload_part(**self._where, PartNumber=number, Body=content)
                self._parts.append({"PartNumber": number, "ETag": answer["ETag"]})

    def complete(self) -> None:
        self._s3.complete_multipart_upload(**self._where, MultipartUpload={"Parts": self._parts})
        self._completed = True

    def abort(self) -> None:
        """Forget what was sent, if the service answers."""
        if not self._completed:
            with suppress(botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
                self._s3.abort_multipart_upload(**self._where)


class _Ranges(io.RawIOBase):
    """A seekable view of an object; every read is one ranged request."""

    def __init__(self, store: S3Store, key: str, size: int, etag: str) -> None:
        super().__init__()
        self._store = store
        self._key = key
        self._size = size
        self._etag = etag
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._size)
        if end <= self._position:
            return 0
        content = self._store.get_range(self._key, self._etag, self._position, end)
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)


def _from_answer(error: botocore.exceptions.ClientError, where: str) -> Exception:
    code = error_code(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "NoSuchBucket":
        return ConfigurationError([f"{where} does not exist; create the bucket, or name another in KALSHI_LAKE_ROOT"])
    if code == "InvalidObjectState":
        return LakeArchived(f"{where}: the object is archived; restore it (aws s3api restore-object) and read again")
    if code in _REJECTED_KEYS:
        return ConfigurationError(
            [f"{where} refuses the credentials ({_sentence(error)}); check the AWS keys and their region"]
        )
    said = _sentence(error) or str(status)
    if status in (301, 403):
        return ConfigurationError([f"{where} refuses the request ({said}); check permissions and region"])
    if status in (400, 405, 501) and code != "RequestTimeout":
        return ConfigurationError([f"{where} refuses the request ({said}); check AWS_REGION and what the store offers"])
    return LakeUnavailable(f"{where}: {said}")


def _sentence(error: botocore.exceptions.ClientError) -> str:
    """The service's own words: its code and its message."""
    message = " ".join(str(error.response.get("Error", {}).get("Message") or "").split())
    return ": ".join(part for part in (error_code(error), message) if part)[:_SENTENCE_LENGTH]


def _with_md5(params: dict[str, Any], **_: Any) -> None:
    """Content-MD5 in place of the newer checksum, which the SDK insists on where S3 wants one."""
    content = params["body"]
    chosen = params["context"].get("checksum", {})
    chosen.pop("request_algorithm", None)
    chosen.pop("request_algorithm_header", None)
    digest = hashlib.md5(content, usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = base64.b64encode(digest).decode()
