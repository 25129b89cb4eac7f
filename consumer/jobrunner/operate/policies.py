"""Whom a queue policy lets send; pure, no thread. The forms are those of AWS's IAM policy language."""

import json
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

Statement = Mapping[str, Any]

#: Condition keys that narrow who may come (AWS: global condition context keys).
WHO_KEYS = {
    f"aws:{name}"
    for name in (
        *("sourcearn", "sourceaccount", "sourceorgid", "sourceorgpaths", "sourceip", "sourcevpc", "sourcevpce"),
        *("principalarn", "principalaccount", "principalorgid", "principalorgpaths", "userid", "vpcsourceip"),
    )
}


def senders(policy: Mapping[str, Any]) -> Iterator[tuple[Statement, str]]:
    """Give each principal that a policy lets send, with the statement that does."""
    for statement in _statements(policy):
        if statement.get("Effect") == "Allow" and _covers_sending(statement):
            for who in _principals(statement):
                yield statement, who


def reason_to_worry(statement: Statement, who: str, own_account: str) -> str:
    """Say what is wrong with letting somebody send; empty if nothing is."""
    if _is_guarded(statement):
        return ""
    if who == "*":
        return "anybody on the internet may call any job with any params"
    if who.endswith(".amazonaws.com"):
        return "any account's rules may send through this service: a Condition on aws:SourceArn is missing"
    # An ARN has its account in the fifth place; a bare account stands for itself.
    account = who.split(":")[4] if who.startswith("arn:") else who
    return "" if account == own_account else "another account may call any job with any params"


def without(policy: Mapping[str, Any], statement: Statement) -> str:
    """Write a policy without one of its statements; empty, which SQS takes for none, if it was the last."""
    left = [each for each in _statements(policy) if each is not statement]
    return json.dumps({**policy, "Statement": left}) if left else ""


def _statements(policy: Mapping[str, Any]) -> list[Statement]:
    given = policy.get("Statement", [])
    return [given] if isinstance(given, dict) else list(given)


def _covers_sending(statement: Statement) -> bool:
    covered = any(fnmatchcase("sqs:sendmessage", name.lower()) for name in _listed(statement.get("Action", [])))
    left_out = [fnmatchcase("sqs:sendmessage", name.lower()) for name in _listed(statement.get("NotAction", []))]
    return covered or (bool(left_out) and not any(left_out))


def _principals(statement: Statement) -> Iterator[str]:
    if "NotPrincipal" in statement:
        yield "*"  # all but a few
    principal = statement.get("Principal", {})
    for value in principal.values() if isinstance(principal, dict) else [principal]:
        yield from _listed(value)


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _is_guarded(statement: Statement) -> bool:
    """Tell whether a condition says who: one on TLS, for example, lets anybody in who uses it."""
    keys = {key.lower() for condition in statement.get("Condition", {}).values() for key in condition}
    return not keys.isdisjoint(WHO_KEYS)
