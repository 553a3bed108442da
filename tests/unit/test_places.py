"""Addresses: what of them nobody else should read is told and hidden, and nothing else is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cellscribe import places
from cellscribe.places import hidden, secret_problem
from cellscribe.schema import shown

ROOT = Path(__file__).parents[2]
# The same word in each: what must not be seen.
SECRET = "hunter2"
WITH_SECRETS = {
    f"https://me:{SECRET}@host/model.zip": "https://***@host/model.zip",
    f"https://{SECRET}@host/model.zip": "https://***@host/model.zip",
    f"http://me:{SECRET}@host:5000/a@b": "http://***@host:5000/a@b",
    f"https://me:a@{SECRET}@host/x": "https://***@host/x",
    f"https://me:{SECRET}/{SECRET}@host/x": "https://***@host/x",
    f"s3://KEY:{SECRET}@bucket/x": "s3://***@bucket/x",
    f"https://h/m.zip?X-Amz-Signature={SECRET}&x=1": "https://h/m.zip?X-Amz-Signature=***&x=1",
    f"https://h/m.zip?a=1&AWSAccessKeyId={SECRET}": "https://h/m.zip?a=1&AWSAccessKeyId=***",
    f"https://h/m.zip?X-Amz-Security-Token={SECRET}": "https://h/m.zip?X-Amz-Security-Token=***",
    f"https://h/m.zip?X-Goog-Credential={SECRET}": "https://h/m.zip?X-Goog-Credential=***",
    f"https://h/m.zip?sv=2&sig={SECRET}": "https://h/m.zip?sv=2&sig=***",
    f"https://h/m.zip?token={SECRET}#part": "https://h/m.zip?token=***#part",
    f"https://h/m.zip?private_token={SECRET}": "https://h/m.zip?private_token=***",
    f"https://h/m.zip?ACCESSTOKEN={SECRET}": "https://h/m.zip?ACCESSTOKEN=***",
    f"https://h/m.zip?password={SECRET},https://h/b.zip": "https://h/m.zip?password=***,https://h/b.zip",
    f'{{"model":"https://me:{SECRET}@h/m","input":"a@b"}}': '{"model":"https://***@h/m","input":"a@b"}',
}
WITHOUT = [
    "https://host:8080/a@b.zip",
    "s3://bucket/me@lab/x.h5",
    "https://h/m.zip?download=1",
    "https://h/m.zip?design=1&keyboard=2&author=x",
    "models:/lung@champion",
    "image@sha256:0123",
    "/data/a@b/x?token.h5",
    "pbmc==1.3,./mine",
]


@pytest.mark.parametrize("text", WITH_SECRETS)
def test_passwords_and_signatures_are_told_and_hidden(text: str) -> None:
    assert hidden(text) == WITH_SECRETS[text]
    assert SECRET not in shown(text)
    problem = secret_problem(text)
    assert problem and SECRET not in problem and "download the file" in problem
    assert secret_problem(hidden(text)), "what is hidden is still refused"


@pytest.mark.parametrize("text", WITHOUT)
def test_other_addresses_are_left_as_they_are(text: str) -> None:
    assert hidden(text) == text and secret_problem(text) is None


def test_nextflow_hides_what_the_library_does() -> None:
    text = (ROOT / "workflows" / "inputs.nf").read_text()
    for name, ours in (("user", places._USER), ("signed", places._SIGNED)):
        found = re.search(rf"def {name} += '((?:\\.|[^'\\])*)'", text)
        assert found
        groovy = re.sub(r"\\(.)", r"\1", found[1])
        assert groovy == ours.replace('\\"', '"'), name


@pytest.mark.parametrize("text", WITH_SECRETS)
def test_the_launcher_knows_them_too(text: str) -> None:
    script = (ROOT / "setup" / "refuse-secrets").read_text()
    user, signed = (re.search(rf"^{name}='(.*)'$", script, flags=re.M) for name in ("user", "signed"))
    assert user and signed
    assert re.search(user[1], text) or re.search(signed[1], text, flags=re.I)
    for other in WITHOUT:
        assert not re.search(user[1], other) and not re.search(signed[1], other, flags=re.I)
    # The same two once more, where Nextflow is told to write no report of such a command line.
    config = (ROOT / "nextflow.config").read_text()
    assert f"matches('(?is).*({user[1]}|{signed[1]}).*')" in config
