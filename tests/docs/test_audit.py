"""The audit of dependencies says unknown where nobody says."""

from urllib.error import HTTPError

import pytest

pytest.importorskip("tomllib")  # Python 3.11
from checks import audit


def pages(table):
    def page(path):
        if path not in table:
            raise HTTPError(path, 404, "not found", {}, None)
        return table[path]

    return page


LEAK = {"id": "PYSEC-1", "aliases": ["CVE-1"]}


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ({"a/1": {"vulnerabilities": []}}, []),
        ({"a/1": {"vulnerabilities": [LEAK, {"id": "PYSEC-2"}]}}, ["CVE-1", "PYSEC-2"]),
        ({"a": {"info": {"version": "1"}, "vulnerabilities": [LEAK]}}, ["CVE-1"]),
        ({"a": {"info": {"version": "2"}, "vulnerabilities": []}}, None),
    ],
    ids=["clean", "known", "a mirror without pages of versions", "an older version there"],
)
def test_what_is_known_of_a_version_is_told_and_what_is_not_is_unknown(table, found, monkeypatch):
    monkeypatch.setattr(audit, "_page", pages(table))
    assert audit.advisories("a", "1") == found


def test_the_audit_ends_with_one_where_something_is_known(monkeypatch, capsys):
    monkeypatch.setattr(audit, "advisories", lambda name, _: ["CVE-1"] if name == "torch" else [])
    with pytest.raises(SystemExit) as left:
        audit.main()
    said = capsys.readouterr().out
    assert left.value.code == 1 and "CVE-1" in said and ", 1 known, 0 unknown" in said
    assert {"torch", "pillow", "safetensors"} <= set(audit.named([])) < set(audit.named(["train"]))
