"""Trains a small classifier on scikit-learn's handwritten digits and writes what the example needs.

`python examples/digits/train.py` writes `model/digits.onnx` and, from the images that were kept out of the training,
`requests/*.png` with `requests/labels.json`. Split and seeds are fixed: the same versions give the same files.
"""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).resolve().parent
REQUESTS = 60
SEED = 20


def main() -> None:
    digits = load_digits()
    # Brightness from 0 to 255, as the images that the server is sent have it.
    pixels = np.rint(digits.data * (255 / 16)).astype(np.float32)
    split = train_test_split(pixels, digits.target, test_size=0.3, stratify=digits.target, random_state=SEED)
    train_pixels, held_pixels, train_labels, held_labels = split
    model = make_pipeline(StandardScaler(), MLPClassifier((48,), max_iter=400, random_state=SEED))
    model.fit(train_pixels, train_labels)
    print(f"accuracy on {len(held_labels)} held-out images: {model.score(held_pixels, held_labels):.3f}")
    write_model(model, train_pixels)
    write_requests(held_pixels[:REQUESTS], held_labels[:REQUESTS])


def write_model(model: object, sample: np.ndarray) -> None:
    """`model/digits.onnx`: input "X" of shape (n, 64), outputs "label" and "probabilities" of shape (n, 10)."""
    exported = to_onnx(model, sample[:1], options={id(model): {"zipmap": False}}, target_opset=17)
    target = HERE / "model" / "digits.onnx"
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(exported.SerializeToString())


def write_requests(images: np.ndarray, labels: np.ndarray) -> None:
    folder = HERE / "requests"
    folder.mkdir(exist_ok=True)
    names = {}
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        name = f"{number:02}.png"
        (folder / name).write_bytes(png(image.reshape(8, 8).astype(np.uint8)))
        names[name] = int(label)
    (folder / "labels.json").write_text(json.dumps(names, indent=0) + "\n")


def png(image: np.ndarray) -> bytes:
    """An 8-bit greyscale PNG (https://www.w3.org/TR/png/), each row unfiltered."""
    height, width = image.shape
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


if __name__ == "__main__":
    main()
