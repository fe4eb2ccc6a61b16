"""Signs requests for Kalshi. Pure: text and a timestamp in, headers out.

Source: docs.kalshi.com, getting_started/api_keys (read 2026-11-22).
"""

from __future__ import annotations

import base64

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

from kalshi_platform.errors import ConfigurationError

_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)


class Signer:
    """Signs requests with one key: RSA by PSS with SHA-256 and a salt of 32 bytes, Ed25519 plainly."""

    __slots__ = ("_key", "_key_id")

    def __init__(self, key_id: str, private_key_pem: bytes) -> None:
        """Load the key. Raises ConfigurationError when it cannot be used; the error's text holds nothing of the key."""
        if not key_id.strip():
            raise ConfigurationError(["key_id is empty: give the id that Kalshi shows beside the API key"])
        self._key_id = key_id.strip()
        self._key = _load(private_key_pem)

    def headers(self, method: str, path: str, timestamp_ms: int) -> dict[str, str]:
        """Return the headers of one request.

        `path` starts at `/trade-api/…`; a query string is left out of the signed text.
        """
        message = f"{timestamp_ms}{method.upper()}{path.partition('?')[0]}".encode()
        if isinstance(self._key, rsa.RSAPrivateKey):
            signature = self._key.sign(message, _PSS, hashes.SHA256())
        else:
            signature = self._key.sign(message)
        return {
            "KALSHI-ACCESS-KEY": self._key_id,
            "KALSHI-ACCESS-TIMESTAMP": str(timestamp_ms),
            "KALSHI-ACCESS-SIGNATURE": base64.b64encode(signature).decode(),
        }


def _load(pem: bytes) -> rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey:
    remedy = "give the PEM file that Kalshi offered when the API key was made (RSA or Ed25519, without a password)"
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The cause is left out on purpose: its text may quote the input.
        raise ConfigurationError([f"private_key_pem is no readable private key: {remedy}"]) from None
    if not isinstance(key, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise ConfigurationError([f"private_key_pem is a key of another kind: {remedy}"])
    return key
