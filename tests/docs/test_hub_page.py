"""Follow docs/hub.md as its readers do, with a hub on this machine."""

import fake_hub
import pytest
from fake_hub import parquet, pictures
from pages import DOCS, blocks, follow, shell

PAGE = DOCS / "hub.md"
NAMES = ["owl", "crow", "finch"]


@pytest.mark.story
def test_every_command_of_the_page_works_and_prints_what_it_says(tmp_path):
    assert sum(block.kind == "sh" for block in blocks(PAGE)) == 7
    with fake_hub.serving() as hub:
        files = {}
        for split, count in (("train", 120), ("test", 30)):
            labels = [i % 3 for i in range(count)]
            columns = {"image": pictures(labels, count, side=36), "label": labels}
            files[f"data/{split}-00000-of-00001.parquet"] = parquet(columns, {"label": NAMES})
        hub.repository("ann/birds").commit(files)
        vectors = {}
        for split, count in (("train", 40), ("test", 10)):
            labels = [i % 2 for i in range(count)]
            columns = {"embedding": [[float(i), float(-i % 2)] for i in range(count)]}
            content = parquet({**columns, "label": labels}, {"label": ["bad", "good"]})
            vectors[f"data/{split}-00000-of-00001.parquet"] = content
        hub.repository("ann/vectors").commit(vectors)
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NLBENCH_WORKERS": "0",
            "no_proxy": "127.0.0.1",
        }
        follow(PAGE, tmp_path, shell(tmp_path, **environment))
        # Nothing was asked for that is no parquet file.
        assert len(hub.downloads()) == 4

    # Both methods learned something: of three classes a guess hits one.
    rows = [line.split("|") for line in (tmp_path / "again.txt").read_text().splitlines()]
    scores = {row[1].strip(): row[2] for row in rows if len(row) == 7}
    assert float(scores["ce"]) > 50
    assert float(scores["elr"]) > 50
