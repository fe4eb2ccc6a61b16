"""The API key: made once as a PEM file that client and exchange share, and the check of a signature."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from kalshi_platform.errors import ConfigurationError

SALT_BYTES = 32


def load_or_create_key(path: Path) -> None:
    """Make an RSA 2048 private key as PEM (mode 0600) when the file is absent.

    Another process may be doing the same.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    pem = rsa.generate_private_key(public_exponent=65_537, key_size=2_048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
        try:
            os.link(unfinished, path)  # unlike a rename, this never replaces the key another process has just made
        except FileExistsError:
            return
    finally:
        unfinished.unlink()


class Verifier:
    """Checks signed requests.

    Key id, timestamp within the tolerance, RSA-PSS with SHA-256, MGF1 SHA-256 and 32 bytes of salt; plain Ed25519 where
    the key file holds such a key.
    """

    def __init__(self, key_file: Path, key_id: str, tolerance_s: float) -> None:
        load_or_create_key(key_file)
        try:
            private = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        except ValueError as error:
            raise ConfigurationError([f"{key_file} holds no PEM private key; remove it to get a new one"]) from error
        if not isinstance(private, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
            raise ConfigurationError([f"{key_file} holds neither an RSA nor an Ed25519 private key"])
        self._public = private.public_key()
        self._key_id = key_id
        self._tolerance_ms = tolerance_s * 1_000

    def problem(self, headers: Mapping[str, str], method: str, path: str, now_ms: int, pace: float = 1.0) -> str | None:
        """Return what is wrong with the signature of a request, or None; `path` is without host and query.

        `pace`: seconds of the exchange in a second of the machine. A fast exchange is as patient with a slow line.
        """
        tolerance_ms = self._tolerance_ms * max(1.0, pace)
        key_id = headers.get("KALSHI-ACCESS-KEY", "")
        timestamp = headers.get("KALSHI-ACCESS-TIMESTAMP", "")
        signature = headers.get("KALSHI-ACCESS-SIGNATURE", "")
        if not (key_id and timestamp and signature):
            return "missing signature headers"
        if key_id != self._key_id:
            return "unknown key"
        if not (timestamp.isascii() and timestamp.isdigit()) or abs(int(timestamp) - now_ms) > tolerance_ms:
            return "timestamp out of tolerance"
        text = f"{timestamp}{method.upper()}{path}".encode()
        try:
            signed = base64.b64decode(signature, validate=True)
            if isinstance(self._public, ed25519.Ed25519PublicKey):
                self._public.verify(signed, text)
            else:
                pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=SALT_BYTES)
                self._public.verify(signed, text, pss, hashes.SHA256())
        except (InvalidSignature, binascii.Error, ValueError):
            return "wrong signature"
        return None


class TokenBucket:
    """Continuous refill; `take` answers whether the budget covers the cost now (`now_s` is monotonic seconds)."""

    def __init__(self, refill_rate: float, capacity: float, now_s: float) -> None:
        self._refill_rate = refill_rate
        self._capacity = capacity
        self._tokens = capacity
        self._at = now_s

    def take(self, cost: float, now_s: float) -> bool:
        """Spend `cost` tokens if there are as many."""
        self._tokens = min(self._capacity, self._tokens + (now_s - self._at) * self._refill_rate)
        self._at = now_s
        if self._tokens < cost:
            return False
        self._tokens -= cost
        return True
