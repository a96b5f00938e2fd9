"""What a process leaves that is killed in the call that ends a suite."""

import os

from sweeps import listener, sweep


def test_a_call_removes_the_checkpoint_that_a_killed_process_left_beside_its_record(tmp_path):
    made = sweep(tmp_path / "out", {"ce": {}}, epochs=1, subset=200)
    folder = made.store.run_dir(made.specs[0].key)

    def on_finish(spec, record):
        # As if its process had been killed before it could do so itself.
        checkpoint = folder / "checkpoint.pt"
        checkpoint.touch()
        written = (folder / "record.json").stat().st_mtime_ns
        os.utime(checkpoint, ns=(written - 1, written - 1))

    made.run(listener(on_finish=on_finish))
    assert sorted(os.listdir(folder)) == ["history.csv", "lock", "predictions.npz", "record.json"]
