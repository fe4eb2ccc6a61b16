"""Reads the environment of the process and the file `.env`."""

from __future__ import annotations

import io
import os
from pathlib import Path

from dotenv import dotenv_values

from kalshi_platform.errors import ConfigurationError


def environment() -> dict[str, str]:
    """Return the process's environment over the values of `.env` in the working folder. Raises ConfigurationError."""
    return environment_with(env_file_text(Path.cwd() / ".env"))


def process_environment() -> dict[str, str]:
    """Return the process's environment alone, for the children of this process."""
    return dict(os.environ)


def environment_with(env_text: str) -> dict[str, str]:
    """Return the process's environment over the values of `env_text`, which has the form of a `.env` file."""
    from_text = {key: value for key, value in dotenv_values(stream=io.StringIO(env_text)).items() if value is not None}
    return {**from_text, **os.environ}


def env_file_text(path: Path) -> str:
    """Return the text of a `.env` file, line ends included; empty without a file. Raises ConfigurationError."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return ""
    except OSError as error:
        is_folder = isinstance(error, IsADirectoryError)
        remedy = "give the folder another name" if is_folder else "make it readable for this user, or remove it"
        raise ConfigurationError(
            [f"{path} cannot be read as a file of settings ({error.strerror}): {remedy}"]
        ) from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            [f"{path}, line {line} is not UTF-8 (byte 0x{raw[error.start]:02x}): save the file in UTF-8"]
        ) from error
