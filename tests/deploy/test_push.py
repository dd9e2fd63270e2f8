"""Push: what may be uploaded to, and that a token is read from one place only."""

from __future__ import annotations

import pytest

from harness.deploy.push import TOKEN, check_repository, token_of_environment
from harness.errors import UserError


@pytest.mark.parametrize("name", ["owner/name", "owner/my-model_2.0", "a/b"])
def test_a_repository_has_an_owner_and_a_name(name: str) -> None:
    check_repository(name)


@pytest.mark.parametrize(
    "name", ["", "name", "owner/name/more", "owner/na me", "owner/-name", "owner/name.git", "a//b"]
)
def test_other_names_are_refused_before_anything_is_made(name: str) -> None:
    with pytest.raises(UserError, match="is not a repository name") as caught:
        check_repository(name)
    assert "--to" in str(caught.value)


def test_a_token_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, " hf_secret\n")
    assert token_of_environment() == "hf_secret"


@pytest.mark.parametrize("value", ["", "  \n"])
def test_without_one_it_is_said_how_to_go_on(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(TOKEN, value)
    with pytest.raises(UserError, match="no token to upload with") as caught:
        token_of_environment()
    assert TOKEN in str(caught.value)
    assert "leave --yes out" in str(caught.value)
