"""Reads settings from a mapping of environment variables, and remembers every problem.

pydantic-settings finds and checks the values by the declarations in the dataclasses of the rooms (`setting.py`); this
module says what is wrong in sentences of the form `VARIABLE is 'value': set it to …`, without the values of secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from pydantic import AliasChoices, Field, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from kalshi_platform.config import kinds
from kalshi_platform.config.deployment import DeploymentSettings
from kalshi_platform.config.environment import environment
from kalshi_platform.errors import ConfigurationError
from kalshi_platform.setting import declared_settings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")
_OUT_OF_BOUNDS = ("greater_than_equal", "less_than_equal")


class _Variables(BaseSettings):
    """Settings made of the values that are given; by itself it reads neither the environment nor a file."""

    model_config = SettingsConfigDict(
        case_sensitive=True, extra="ignore", hide_input_in_errors=True, validate_default=False
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


class Values:
    """The variables of one environment, and the problems that were found in them.

    Reading goes on after a problem, with the field's default or an empty text in its place, so that `check` reports all
    problems at once; what was read before `check` raised is of no use.
    """

    def __init__(self, environ: Mapping[str, str] | None) -> None:
        given = environment() if environ is None else environ
        self._given = {name: value.strip() for name, value in given.items() if value.strip()}
        self._problems: list[str] = []

    @property
    def gatherers(self) -> tuple[str, ...]:
        """The names of the gatherers: those of KALSHI_GATHERERS that can be used, else the usual ones."""
        names = self.read(DeploymentSettings, "gatherers").get("gatherers")
        return names or kinds.usable_gatherer_names(self.text("KALSHI_GATHERERS")) or DeploymentSettings.gatherers

    def text(self, variable: str) -> str:
        """Return the text of a variable as it stands; empty where it is not set."""
        return self._given.get(variable, "")

    def read(self, settings: type[DataclassInstance], *only: str, gatherer: str = "") -> dict[str, Any]:
        """Return the values of those fields whose variables are set, converted.

        `only`: names of fields, without them all; `gatherer` stands for {GATHERER} in the names of variables.
        """
        for declared in declared_settings(settings).values():
            if declared.replaces and declared.replaces in self._given:
                self.add_problem(f"{declared.replaces} is no longer read: set {declared.name} in its place")
        model = _model(settings, only, gatherer)
        source = EnvSettingsSource(model, case_sensitive=True)
        source.env_vars = self._given
        try:
            found = model(**source())
        except ValidationError as error:
            variables = {name: _variables(info) for name, info in model.model_fields.items()}
            wrong = set()
            for each in error.errors():
                name = next(name for name, names in variables.items() if each["loc"][0] in (name, *names))
                self._add_problems(name, settings, variables[name], each)
                wrong.add(name)
            usable = [name for name in model.model_fields if name not in wrong]
            kept = self.read(settings, *usable, gatherer=gatherer) if usable else {}
            return kept | {each.name: "" for each in fields(settings) if each.name in wrong and _has_no_default(each)}
        return {name: getattr(found, name) for name in found.model_fields_set}

    def fill(self, settings: type[Settings], *only: str, gatherer: str = "", **otherwise: Any) -> Settings:
        """Make settings of the variables; `otherwise`: values of fields that no variable fills, or whose is not set."""
        return settings(**{**otherwise, **self.read(settings, *only, gatherer=gatherer)})

    def add_problem(self, problem: str) -> None:
        """Remember a problem; the same one counts once."""
        if problem not in self._problems:
            self._problems.append(problem)

    def check(self) -> None:
        """Raise one ConfigurationError with all problems, if there are any."""
        if self._problems:
            raise ConfigurationError(self._problems)

    def _add_problems(
        self, name: str, settings: type[DataclassInstance], variables: list[str], error: ErrorDetails
    ) -> None:
        """Remember what is wrong with the variable of the field `name`."""
        variable = next((each for each in variables if each in self._given), variables[0])
        declared = declared_settings(settings)[name]
        remedy = kinds.remedy(get_type_hints(settings)[name], declared)
        text = self.text(variable)
        if error["type"] == kinds.REFUSED:
            for problem in error["ctx"]["problems"]:
                self.add_problem(f"{variable}{problem}")
        elif not text:
            self.add_problem(f"{variable} is missing: set it to {remedy}")
        elif declared.secret:
            self.add_problem(f"{variable} cannot be used: set it to {remedy}")
        else:
            shown = text if error["type"] in _OUT_OF_BOUNDS else repr(text)
            self.add_problem(f"{variable} is {shown}: set it to {remedy}")


@cache
def _model(settings: type[DataclassInstance], only: tuple[str, ...], gatherer: str) -> type[_Variables]:
    """Make the pydantic model of the declared fields of a dataclass, or of some of them."""
    hints = get_type_hints(settings)
    declared = {name: each for name, each in declared_settings(settings).items() if not only or name in only}
    without_default = {each.name for each in fields(settings) if _has_no_default(each)}
    definitions: dict[str, Any] = {
        name: (
            kinds.value_type(hints[name], each),
            Field(
                default=... if each.required or name in without_default else None,
                validation_alias=AliasChoices(*(one.format(GATHERER=gatherer.upper()) for one in each.variables)),
            ),
        )
        for name, each in declared.items()
    }
    return create_model(settings.__name__, __base__=_Variables, **definitions)


def _has_no_default(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _variables(info: FieldInfo) -> list[str]:
    alias = info.validation_alias
    return [str(each) for each in alias.choices] if isinstance(alias, AliasChoices) else []
