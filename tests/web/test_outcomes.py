"""The names of failed fetches state what they mean, and which changed settings may turn them into a success."""

from dataclasses import fields

import pytest

from vlmdata.steps.download import Download
from vlmdata.web.outcomes import FINAL, PASSING, changed_settings, described, is_fetch_failure, is_passing


def test_each_failure_has_a_meaning_and_names_parameters_of_download():
    known = {field.name for field in fields(Download)}
    for name, failure in (PASSING | FINAL).items():
        assert failure.meaning and {setting.lstrip("+-") for setting in failure.settings} <= known, name
        assert is_fetch_failure(name) and is_passing(name) is (name in PASSING)


@pytest.mark.parametrize(
    ("failure", "setting", "before", "now", "may_help"),
    [
        ("private_address", "allowed_hosts", [], ["a"], True),
        ("private_address", "allowed_hosts", ["a"], [], False),
        ("private_address", "allowed_hosts", ["a"], ["b"], True),
        ("too_large", "max_bytes", 10, 20, True),
        ("too_large", "max_bytes", 20, 10, False),
        ("too_large", "timeout_s", 20, 30, False),
        ("timeout", "timeout_s", 20, 30, True),
        ("too_many_redirects", "max_redirects", 0, 1, True),
        ("robots", "robots", True, False, True),
        ("robots", "robots", False, True, False),
        ("robots", "agent", "a", "b", True),
        ("noai", "opt_out", ["noai", "noml"], ["noml"], True),
        ("noai", "opt_out", ["noml"], ["noai", "noml"], False),
        ("blocked", "blocked_domains", ["a"], [], True),
        ("http_403", "contact", "", "me@a.example", True),
        ("http_404", "contact", "", "me@a.example", False),
        ("tls_failed", "ca_file", "", "ca.pem", True),
    ],
)
def test_a_changed_setting_may_help_in_one_direction(failure, setting, before, now, may_help):
    assert changed_settings(failure, {setting: before}, {setting: now}) == [setting] * may_help
    assert changed_settings(failure, {setting: now}, {setting: now}) == changed_settings(failure, {}, {setting: now}) == []


def test_a_status_is_described_by_its_phrase():
    assert described("http_404").meaning == "the server answered 404 (Not Found)"
    assert described("http_599").meaning == "the server answered 599 (an unknown status)"
    assert not is_fetch_failure("truncated") and not is_fetch_failure("http_x")
