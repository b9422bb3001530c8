"""No secret that stands in a URI is taken, and none is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attninf_assets.store.filesystems import filesystem_for
from attninf_assets.store.root import Root
from attninf_assets.store.uris import SecretInUriError, redacted, require_no_secret

_SECRETS = st.text("abcXYZ019+/=%:.-", min_size=6).map(lambda text: f"5ecret{text}")
_LEAKS = [
    "s3://AKIA:{}@bucket/a",
    "hf://me:{}@datasets/o/n/x",
    "https://me:{}@host/x",
]
_LEAKS += ["https://host:8080/x?token={}", "s3://bucket/x?a=b&X-Amz-Signature={}", "https://host/x?sig={}"]
_PLAIN = ["/data/a:b@c/?token=x", "s3://bucket/year=20??/a@b:c/*.parquet", "hf://datasets/org/name@main/data/*.parquet"]
_PLAIN += ["http://127.0.0.1:3000", "http://[::1]:3000/x", "data", "s3://bucket/y?ar=2020/x", "~/a b"]


@pytest.mark.parametrize("form", _LEAKS)
@given(secret=_SECRETS)
def test_a_uri_with_a_secret_is_refused_and_neither_the_refusal_nor_what_is_shown_repeats_it(
    form: str, secret: str
) -> None:
    uri = form.format(secret)
    with pytest.raises(SecretInUriError, match="credentials") as refusal:
        require_no_secret(uri)
    assert "5ecret" not in str(refusal.value)
    assert "5ecret" not in redacted(f"cannot open {uri!r}: 403 for {uri} (and {uri})")


@pytest.mark.parametrize("location", _PLAIN)
def test_what_holds_no_secret_passes(location: str) -> None:
    require_no_secret(location)


@pytest.mark.parametrize("text", ["no URI, a@b?token=c", *(f"in {uri}: gone" for uri in _PLAIN if "?" not in uri)])
def test_a_text_without_secrets_is_shown_as_it_is(text: str) -> None:
    assert redacted(text) == text


def test_what_is_left_of_a_uri_still_says_which_it_is() -> None:
    assert redacted("s3://AKIA:a/b+c@bucket/web/a.parquet: gone") == "s3://***@bucket/web/a.parquet: gone"
    assert redacted("https://cdn.test/x?X-Amz-Date=1&sig=2#a") == "https://cdn.test/x?X-Amz-Date=***&sig=***#a"


def test_a_name_alone_before_the_bucket_is_a_secret_too() -> None:
    with pytest.raises(SecretInUriError):
        require_no_secret("s3://5ecret@bucket/a")
    assert redacted("s3://5ecret@bucket/a") == "s3://***@bucket/a"


def test_no_filesystem_and_no_root_is_had_for_a_uri_with_a_secret() -> None:
    for take in (filesystem_for, Root.at):
        with pytest.raises(SecretInUriError) as refusal:
            take("s3://AKIA:5ecret/x@bucket/prefix")
        assert "5ecret" not in str(refusal.value)
