"""Signatures verify with the public key, under exactly Kalshi's parameters."""

from __future__ import annotations

import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.exchange.signing import Signer

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem_of(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def test_an_rsa_signature_covers_time_method_and_path_without_query() -> None:
    headers = Signer("key-1", pem_of(RSA_KEY)).headers("get", "/trade-api/v2/markets?limit=5", 1_795_380_241_123)
    assert headers["KALSHI-ACCESS-KEY"] == "key-1"
    assert headers["KALSHI-ACCESS-TIMESTAMP"] == "1795380241123"
    signature = base64.b64decode(headers["KALSHI-ACCESS-SIGNATURE"], validate=True)
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
    public = RSA_KEY.public_key()
    public.verify(signature, b"1795380241123GET/trade-api/v2/markets", pss, hashes.SHA256())
    with pytest.raises(InvalidSignature):
        public.verify(signature, b"1795380241124GET/trade-api/v2/markets", pss, hashes.SHA256())


def test_an_ed25519_key_signs_the_same_text() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    headers = Signer("key-1", pem_of(key)).headers("GET", "/trade-api/ws/v2", 5)
    key.public_key().verify(base64.b64decode(headers["KALSHI-ACCESS-SIGNATURE"]), b"5GET/trade-api/ws/v2")


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"not a key at all",
        pem_of(RSA_KEY)[:400],
        pem_of(ec.generate_private_key(ec.SECP256R1())),
        RSA_KEY.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        ),
    ],
)
def test_an_unusable_key_names_setting_and_remedy_and_shows_nothing_of_it(pem: bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Signer("key-1", pem)
    assert "private_key_pem" in str(caught.value)
    assert "PEM file" in str(caught.value)
    assert "MII" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_empty_key_id_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="key_id"):
        Signer(" ", pem_of(RSA_KEY))


def test_settings_do_not_show_the_key() -> None:
    settings = ExchangeSettings(key_id="key-1", private_key_pem=pem_of(RSA_KEY))
    assert "PRIVATE KEY" not in repr(settings)
    assert settings.has_key
    assert not ExchangeSettings(key_id="", private_key_pem=b"").has_key
