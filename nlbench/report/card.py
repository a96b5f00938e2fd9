"""The card of a publication: README.md as Hugging Face reads it, with the tables of the suites."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nlbench.errors import UserError
from nlbench.results import table
from nlbench.results.formats import markdown_name

if TYPE_CHECKING:
    from nlbench import registry
    from nlbench.results.store import Store

# The classes of size that Hugging Face has, by their upper ends.
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
_LARGEST = "10M<n<100M"


@dataclass(frozen=True)
class Facts:
    """What a card says of the files beside it."""

    suites: Sequence[str]
    records: int
    epochs: int
    licence: str


def check_licence(name: str) -> None:
    """Raise UserError for a licence that cannot be an identifier of Hugging Face."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name):
        raise UserError(
            f"--license {name}: write the identifier that Hugging Face lists, in small letters, "
            "such as cc-by-4.0, cc0-1.0, mit or other"
        )


def render(
    store: Store,
    suite: str | None,
    methods: Mapping[str, registry.MethodFile],
    facts: Facts,
) -> str:
    """Return the card.

    Raises: StoreError and SuiteError as `table.render_suites`.
    """
    tables = table.render_suites(store, suite, methods=methods)
    names = ", ".join(map(markdown_name, facts.suites))
    return f"""{_front_matter(facts)}
# Learning with noisy labels: {names}

{facts.records:,} trainings of methods for learning with noisy labels, made by nlbench. Each has one
line in `records.parquet`, and each of its epochs one in `epochs.parquet`. `index.html` shows all of
it as one page, which needs no network: download it and open it.

```python
from datasets import load_dataset

records = load_dataset("OWNER/NAME", "records", split="train")
epochs = load_dataset("OWNER/NAME", "epochs", split="train")
```

Accuracies and shares are fractions from 0 to 1, and epochs count from 0. `key` is the hash of
everything that can change the result of a run, and connects the two files. `suite`, `row` and
`condition` say where the run stands in the tables below; `last` is the test accuracy after the last
epoch, and `best` that of the epoch which is best on the test images, an oracle. Columns that hold
several values, such as `params`, are JSON.

The datasets that the methods were trained on are not part of this one, and have licences of their
own.

## Tables

{tables}"""


def _front_matter(facts: Facts) -> str:
    """Return the YAML that Hugging Face reads. JSON's texts are YAML's, whatever is in them."""
    title = json.dumps(f"Noisy-label results: {', '.join(facts.suites)}")
    rows = max(facts.records, facts.epochs)
    size = next((name for end, name in _SIZES if rows < end), _LARGEST)
    return f"""---
pretty_name: {title}
license: {facts.licence}
task_categories:
- image-classification
tags:
- noisy-labels
- label-noise
- benchmark
- nlbench
size_categories:
- {size}
configs:
- config_name: records
  default: true
  data_files:
  - split: train
    path: records.parquet
- config_name: epochs
  data_files:
  - split: train
    path: epochs.parquet
---
"""
