# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from sfumato.errors import ConfigError
from sfumato.options import DataOptions


def test_identities_of_a_recipe() -> None:
    options = DataOptions(private_identities=40, pretrain_identities=10, overlap=0.01, auxiliary="public")
    assert (options.private_identities, options.pretrain_identities, options.overlap) == (40, 10, 0.01)
    assert DataOptions().private_identities is None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"private_identities": 1}, "private_identities must be at least 2 .*got 1 and 0"),
        ({"private_identities": 5, "pretrain_identities": -1}, "pretrain_identities at least 0, got 5 and -1"),
        ({"private_identities": 5, "overlap": 1.0}, r"overlap must be in \[0, 1\).*got 1.0"),
        ({"private_identities": 5, "overlap": -0.1}, r"overlap must be in \[0, 1\).*got -0.1"),
        ({"overlap": 2.0}, r"overlap must be in \[0, 1\).*got 2.0"),
        ({"pretrain_identities": 5}, "needs private_identities"),
        ({"private_identities": 5, "public": 0.2}, "leave them out"),
        ({"private_identities": 5, "reference": 0.2}, "leave them out"),
        ({"private_identities": 5, "auxiliary": "test"}, "leave them out"),
        ({"auxiliary": "public"}, "needs public pictures"),
    ],
)
def test_identities_that_do_not_go_together(keys: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataOptions(**keys)  # type: ignore[arg-type]
