"""Keys as data: changes of the document, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.ops import api_keys
from roost.ops.api_keys import ApiKey, Budget, KeyDocument, Role, Tier, TierChange, TierLimits, digest_of
from roost.ops.errors import RoostError

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def key(name: str = "alice", **more: object) -> ApiKey:
    return api_keys.made_key({"name": name, "sha256": digest_of(name), **more})


names = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,62}", fullmatch=True)
keys = st.builds(
    ApiKey,
    name=names,
    sha256=st.binary().map(lambda b: digest_of(b.hex())),
    role=st.sampled_from(Role),
    models=st.lists(st.text(max_size=20), max_size=3).map(tuple),
    tier=st.sampled_from(Tier),
    owner=st.text(max_size=50),
    budget=st.builds(Budget, tokens_per_day=st.integers(0, 10**12)),
    expires=st.none() | st.datetimes(timezones=st.just(UTC)),
)
documents = st.builds(
    KeyDocument,
    keys=st.lists(keys, max_size=4).map(tuple),
    tiers=st.dictionaries(st.sampled_from(Tier), st.builds(TierChange, requests=st.integers(0, 10**12)), max_size=3),
)


@given(documents)
def test_a_document_comes_back_from_its_text(document: KeyDocument) -> None:
    assert api_keys.parse_document(document.text()) == document


def test_nothing_is_a_document_without_keys_and_rubbish_is_none() -> None:
    assert api_keys.parse_document(" \n") == KeyDocument()
    for text in ("{", '{"format": 2}', '{"keys": [{"name": "A B", "sha256": "x"}]}'):
        with pytest.raises(ValueError, match="validation error"):
            api_keys.parse_document(text)


def test_a_name_is_given_once_and_that_of_the_first_key_never() -> None:
    document = api_keys.with_key(KeyDocument(), key())
    with pytest.raises(RoostError, match="taken"):
        api_keys.with_key(document, key())
    for name in ("admin", "admin-2"):
        with pytest.raises(RoostError, match="first key"):
            api_keys.with_key(document, key(name))
    revoked = api_keys.without_key(document, "alice", NOW, purge=False)
    with pytest.raises(RoostError, match="revoked"):
        api_keys.with_key(revoked, key())
    purged = api_keys.without_key(revoked, "alice", NOW, purge=True)
    assert api_keys.with_key(purged, key()) == document


def test_a_revoked_key_stays_revoked() -> None:
    document = api_keys.with_key(KeyDocument(), key())
    document = api_keys.rotated(document, "alice", digest_of("new"), NOW, timedelta(days=1))
    revoked = api_keys.without_key(document, "alice", NOW, purge=False)
    found = api_keys.required(revoked, "alice")
    assert (found.state(NOW), found.previous_sha256, found.previous_until) == ("revoked", None, None)
    assert api_keys.without_key(revoked, "alice", NOW + timedelta(1), purge=False) == revoked
    with pytest.raises(RoostError, match="revoked"):
        api_keys.rotated(revoked, "alice", digest_of("other"), NOW, timedelta())


def test_a_new_secret_may_leave_the_old_one_a_while() -> None:
    document = api_keys.with_key(KeyDocument(), key())
    at_once = api_keys.required(api_keys.rotated(document, "alice", digest_of("new"), NOW, timedelta()), "alice")
    assert (at_once.sha256, at_once.previous_sha256) == (digest_of("new"), None)
    later = api_keys.required(api_keys.rotated(document, "alice", digest_of("new"), NOW, timedelta(hours=2)), "alice")
    assert (later.previous_sha256, later.previous_until) == (digest_of("alice"), NOW + timedelta(hours=2))


def test_a_change_keeps_what_it_does_not_name() -> None:
    document = api_keys.with_key(KeyDocument(), key(owner="team", budget={"tokens_per_day": 5, "cost_per_month": 1}))
    changed = api_keys.required(
        api_keys.changed(document, "alice", {"tier": "bulk", "budget": {"tokens_per_day": 9}}), "alice"
    )
    assert (changed.tier, changed.owner) == (Tier.BULK, "team")
    assert changed.budget == Budget(tokens_per_day=9, cost_per_month=1)
    with pytest.raises(RoostError, match=r"budget\.tokens_per_day"):
        api_keys.changed(document, "alice", {"budget": {"tokens_per_day": -1}})
    with pytest.raises(RoostError, match="secrets/api-key"):
        api_keys.changed(document, "admin", {"tier": "bulk"})
    with pytest.raises(RoostError, match="no key named 'bob'"):
        api_keys.changed(document, "bob", {"tier": "bulk"})


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("never", None),
        ("12h", NOW + timedelta(hours=12)),
        ("2w", NOW + timedelta(days=14)),
        ("2030-12-31", datetime(2030, 12, 31, tzinfo=UTC)),
        ("2030-12-31T10:00:00+02:00", datetime(2030, 12, 31, 8, tzinfo=UTC)),
    ],
)
def test_an_expiry_is_an_age_or_a_date(text: str, when: datetime | None) -> None:
    assert api_keys.parse_expiry(text, NOW) == when


@pytest.mark.parametrize("text", ["soon", "3x", "", "2029-12-31", "0h"])
def test_an_expiry_that_is_none_says_so(text: str) -> None:
    with pytest.raises(RoostError):
        api_keys.parse_expiry(text, NOW)


def test_a_secret_is_long_and_new_each_time() -> None:
    made = {api_keys.new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(len(secret) >= 48 and secret.startswith("roost-") for secret in made)


def test_the_first_file_holds_administrators() -> None:
    first, second = api_keys.first_keys([digest_of("a"), digest_of("b")])
    assert (first.name, second.name) == ("admin", "admin-2")
    assert {first.role, second.role} == {Role.ADMIN}


def test_overrides_of_a_tier_add_up_and_go() -> None:
    document = api_keys.with_tier(KeyDocument(), Tier.BULK, TierChange(requests=5))
    document = api_keys.with_tier(document, Tier.BULK, TierChange(tokens=0))
    limits = document.tiers[Tier.BULK].applied_to(TierLimits(requests=60, tokens=100, concurrent=2))
    assert limits == TierLimits(requests=5, tokens=0, concurrent=2)
    assert api_keys.with_tier(document, Tier.BULK, None) == KeyDocument()


def test_a_time_without_a_zone_is_none() -> None:
    """Comparing it would fail each request of the key."""
    text = KeyDocument(keys=(key(expires=NOW),)).text()
    assert api_keys.parse_document(text).keys[0].expires == NOW
    with pytest.raises(ValueError, match="timezone"):
        api_keys.parse_document(text.replace("2030-01-01T00:00:00Z", "2030-01-01T00:00:00"))
