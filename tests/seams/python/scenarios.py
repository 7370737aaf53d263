"""One line of scenarios.txt: a name, a kind, and parameters. The list is the same for every seam."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

UNITS = {"KiB": 1 << 10, "MiB": 1 << 20}


@dataclass
class Scenario:
    """What is played."""

    name: str
    kind: str
    parameters: dict[str, str] = field(default_factory=dict)

    def text(self, key: str, otherwise: str = "") -> str:
        """A parameter, or `otherwise` where the line does not give it."""
        return self.parameters.get(key, otherwise)

    def number(self, key: str, otherwise: int) -> int:
        """A parameter as a number; KiB and MiB may follow it."""
        value = self.text(key)
        if not value:
            return otherwise
        unit = next((unit for unit in UNITS if value.endswith(unit)), "")
        return int(value.removesuffix(unit)) * UNITS.get(unit, 1)


def read(path: Path) -> list[Scenario]:
    """The file's scenarios, in its order; ValueError with file and line where one cannot be followed."""
    kinds: dict[str, set[str]] = {}
    scenarios: dict[str, Scenario] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        words = shlex.split(line, comments=True)
        try:
            if words and words[0] == "kind":
                kinds[words[1]] = set(words[2:])
            elif words:
                scenario = _parse(words, kinds)
                if scenario.name in scenarios:
                    raise ValueError("the name is used twice")
                scenarios[scenario.name] = scenario
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from error
    return list(scenarios.values())


def _parse(words: list[str], kinds: dict[str, set[str]]) -> Scenario:
    name, kind, *pairs = words
    if kind not in kinds:
        raise ValueError(f"no kind '{kind}' is declared")
    parameters = dict(pair.split("=", 1) for pair in pairs)
    for key in parameters:
        if key not in kinds[kind]:
            raise ValueError(f"a {kind} has no parameter '{key}'")
    return Scenario(name, kind, parameters)
