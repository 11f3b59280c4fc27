"""Which photographs the report shows."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.manifest import Manifest, Record
from pipeline.report.gallery import chosen


def manifest_of(tags: Sequence[set[int]], classes: int) -> Manifest:
    names = [str(number) for number in range(classes)]
    records = [
        Record(str(place), "train", "", 1, 1, tuple(map(str, sorted(found)))) for place, found in enumerate(tags)
    ]
    return Manifest(tuple(records), tuple(names))


@given(st.lists(st.sets(st.integers(0, 4)), max_size=12), st.integers(0, 15))
def test_choice_is_distinct_in_order_and_covers_the_classes(tags: list[set[int]], count: int) -> None:
    picked = [int(record.id) for record in chosen(manifest_of(tags, 5), count)]
    assert picked == sorted(set(picked)) and len(picked) == min(count, len(tags))
    if count >= 5:
        assert set().union(*(tags[place] for place in picked)) == set().union(*tags)


def test_choice_is_spread() -> None:
    picked = [int(record.id) for record in chosen(manifest_of([{0}] * 101, 1), 5)]
    assert picked == [0, 25, 50, 75, 100]
