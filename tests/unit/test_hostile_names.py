"""Names that reach a command line by other ways than the sheet and the parameters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cellscribe import registry
from cellscribe.errors import ModelFetchError


@pytest.mark.parametrize(
    "version", ["1'; touch sprung; '", "0", "1\n", "$(touch sprung)", "", "-1", "1" * 20]
)
def test_no_version_that_a_server_makes_up_comes_to_a_command_line(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    class Client:
        """A server that answers whatever it likes."""

        def get_model_version_by_alias(self, name: str, alias: str) -> Any:
            return SimpleNamespace(name=name, version=version, tags={"sha256": "' ; touch sprung"})

        def get_model_version_download_uri(self, name: str, number: str) -> str:
            return "file:///nowhere"

    monkeypatch.setattr(registry, "connect", lambda server: Client())
    with pytest.raises(ModelFetchError, match="which is no number"):
        registry.resolve(registry.parse_name("models:/lung@best"), "http://host:5000")
