"""Keys of content: the same value for the same content, for one row or for many, whatever the texts."""

import hashlib
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from hir_core.schemas import content_key, content_keys

VALUES = st.none() | st.integers() | st.text() | st.sampled_from(['"', "\\", "\x7f", "é", "😀", "\u2028", "\ud800"])


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[VALUES] * width), min_size=1)))
def test_a_key_is_the_digest_of_the_values_as_json(rows):
    expected = [
        hashlib.sha256(json.dumps(row, separators=(",", ":"), sort_keys=True).encode()).hexdigest()[:16] for row in rows
    ]
    assert [content_key(*row) for row in rows] == expected
    assert list(content_keys(*zip(*rows, strict=True))) == expected


def test_keys_never_change():
    assert content_key("s0", "hindsight", 'Be "right".\n') == "8ec35d8c22fa43d6"
