"""What must not leave the machine, wherever it stands; and labels, on request."""

from __future__ import annotations

import json

import pytest

from agent.cli.bundle import redact

TOKEN = "eyJhbGciOiJSUzI1NiIsImtpZCI6IiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"the server said {TOKEN}.", TOKEN),
        (f"Authorization: Bearer {TOKEN}", TOKEN),
        ("authorization: bearer opaque-abcdef", "opaque-abcdef"),
        ("headers={'Authorization': 'Basic dXNlcjpwdw=='}", "dXNlcjpwdw"),
        ('{"token": "s3cr3t-value"}', "s3cr3t-value"),
        ('{\\"password\\": \\"s3cr3t-value\\"}', "s3cr3t-value"),
        ("client-key-data: LS0tLS1CRUdJTg==", "LS0tLS1CRUdJTg"),
        ("AWS_SECRET=s3cr3t-value", "s3cr3t-value"),
        ("https://me:s3cr3t@api:6443/x", "s3cr3t"),
        (f"before {PEM} after", "MIIEpAIBAAKCAQEA"),
        (json.dumps({"event": PEM}), "MIIEpAIBAAKCAQEA"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKCAQEA, cut", "MIIEpAIBAAKCAQEA"),
    ],
)
def test_what_looks_like_a_secret_is_gone(text: str, secret: str) -> None:
    scrubbed = redact.scrub(text)
    assert secret not in scrubbed
    assert redact.GONE in scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "policy enforced revision=4 generation=2",
        "NetworkPolicy x/to-b ingress[0]",
        "10.0.0.1 fd00::1/64 https://api:6443",
        '{"event": "connected", "resource": "pods"}',
    ],
)
def test_what_is_none_stays(text: str) -> None:
    assert redact.scrub(text) == text


def test_text_after_a_pem_block_stays() -> None:
    assert redact.scrub(f"before {PEM} after") == f"before {redact.GONE} after"


DOCUMENT = {
    "pod": "a",
    "labels": {"app": "payroll", "tier": "payroll"},
    "source": {"labels": {"app": "payroll"}, "namespace_labels": {"team": "red"}},
    "problems": [{"ref": {"name": "p"}, "path": "spec", "reason": "wants app=payroll"}],
    "subject": "pods with app=payroll",
    "reason": "policy_denied",
    "count": 3,
}


def test_values_of_labels_become_hashes_that_are_the_same_within_a_bundle_and_in_no_other() -> None:
    one = redact.Redactor(key=b"1", labels=True).document(DOCUMENT)
    assert isinstance(one, dict)
    assert "payroll" not in json.dumps(one)
    assert one["labels"]["app"] == one["labels"]["tier"] == one["source"]["labels"]["app"]
    assert one["labels"]["app"] != one["source"]["namespace_labels"]["team"]
    other = redact.Redactor(key=b"2", labels=True).document(DOCUMENT)
    assert isinstance(other, dict)
    assert other["labels"]["app"] != one["labels"]["app"]
    assert (one["pod"], one["reason"], one["count"]) == ("a", "policy_denied", 3)


def test_labels_stay_unless_asked_for() -> None:
    assert redact.Redactor(key=b"1", labels=False).document(DOCUMENT) == DOCUMENT


def test_secrets_in_documents_are_gone_in_keys_and_values_and_the_document_stays_one() -> None:
    told = {"last_error": f"401: Bearer {TOKEN}", "labels": {TOKEN: TOKEN}, "list": [f"token={TOKEN}"]}
    for labels in (False, True):
        found = json.dumps(redact.Redactor(key=b"1", labels=labels).document(told))
        assert TOKEN not in found
