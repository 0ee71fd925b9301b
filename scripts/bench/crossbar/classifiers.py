"""Small classifiers with their data: a perceptron with one hidden layer, trained by plain numpy.

Digits are those of scikit-learn (1797 images of 8 x 8); Fashion-MNIST is the Debian package `dataset-fashion-mnist`
(60,000 + 10,000 images of 28 x 28). Training is seeded and takes seconds.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_TESTED = 5000
"""Test images of Fashion-MNIST that are used: their choice makes a standard error of 0.5 %, alike in all figures."""

Array = np.ndarray
Multiply = Callable[[Array], Array]


class DataMissing(Exception):
    """A data set is not installed; says how to get it."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """Images as columns (pixels, images) from 0 to 1, and what they show (images,)."""

    name: str
    train_images: Array
    train_labels: Array
    test_images: Array
    test_labels: Array


@dataclass(frozen=True, slots=True)
class Classifier:
    """Layers of weights (outputs, inputs) and biases (outputs, 1), with a rectifier between them."""

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]

    def scores(self, images: Array, layers: tuple[Multiply, ...] | None = None) -> Array:
        """Return (classes, images); `layers` multiply in place of the exact weights."""
        signal = self.inputs(images, layers)[-1]
        return self._layer(len(self.weights) - 1, signal, layers)

    def inputs(self, images: Array, layers: tuple[Multiply, ...] | None = None) -> list[Array]:
        """Return what arrives at each layer: (inputs, images)."""
        signals = [images]
        for index in range(len(self.weights) - 1):
            signals.append(np.maximum(self._layer(index, signals[-1], layers), 0))
        return signals

    def accuracy(self, data: DataSet, layers: tuple[Multiply, ...] | None = None) -> float:
        """Return the share of test images that are recognised."""
        guesses = self.scores(data.test_images, layers).argmax(axis=0)
        return float((guesses == data.test_labels).mean())

    def _layer(self, index: int, signal: Array, layers: tuple[Multiply, ...] | None) -> Array:
        weights = self.weights[index]
        product = weights @ signal if layers is None else layers[index](signal)
        return product + self.biases[index]


def digits() -> DataSet:
    """Return scikit-learn's digits, 30 % of them for the test."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as missing:
        raise DataMissing("digits come with scikit-learn: pip install 'sedmad[bench]'") from missing
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    columns = (images[order] / 16).astype(np.float32).T
    split = len(labels) * 7 // 10
    return DataSet("digits", columns[:, :split], labels[order[:split]],
                   np.ascontiguousarray(columns[:, split:]), labels[order[split:]])  # fmt: skip


def fashion() -> DataSet:
    """Return Fashion-MNIST, with the first test images only."""
    if not FASHION_FOLDER.is_dir():
        raise DataMissing(f"{FASHION_FOLDER} is not there: apt-get install dataset-fashion-mnist")
    tested = slice(FASHION_TESTED)
    images = np.ascontiguousarray(_images("t10k")[:, tested])
    return DataSet("Fashion-MNIST", _images("train"), _labels("train"), images, _labels("t10k")[tested])


def train(data: DataSet, hidden: int, *, epochs: int, seed: int = 0) -> Classifier:
    """Train by stochastic gradient descent with momentum on the cross-entropy of a softmax."""
    rng = np.random.default_rng(seed)
    sizes = (len(data.train_images), hidden, int(data.train_labels.max()) + 1)
    weights = [
        (rng.standard_normal((outputs, inputs)) * np.sqrt(2 / inputs)).astype(np.float32)
        for inputs, outputs in pairwise(sizes)
    ]
    parameters = [*weights, *(np.zeros((outputs, 1), np.float32) for outputs in sizes[1:])]
    momenta = [np.zeros_like(parameter) for parameter in parameters]
    batch, count = 64, len(data.train_labels)
    for epoch in range(epochs):
        rate = 0.05 * (1 - epoch / epochs) + 0.002
        for chosen in np.array_split(rng.permutation(count), count // batch):
            gradients = _gradients(parameters, data.train_images[:, chosen], data.train_labels[chosen])
            for parameter, momentum, gradient in zip(parameters, momenta, gradients, strict=True):
                momentum *= 0.9
                momentum -= rate * (gradient + 1e-4 * parameter)
                parameter += momentum
    return Classifier(tuple(parameters[:2]), tuple(parameters[2:]))


def _gradients(parameters: list[Array], images: Array, labels: Array) -> list[Array]:
    first, second, first_bias, second_bias = parameters
    hidden = np.maximum(first @ images + first_bias, 0)
    scores = second @ hidden + second_bias
    scores -= scores.max(axis=0)
    wrong = np.exp(scores)
    wrong /= wrong.sum(axis=0)
    wrong[labels, np.arange(len(labels))] -= 1
    wrong /= len(labels)
    back = (second.T @ wrong) * (hidden > 0)
    return [
        back @ images.T,
        wrong @ hidden.T,
        back.sum(axis=1, keepdims=True),
        wrong.sum(axis=1, keepdims=True),
    ]


def _images(part: str) -> Array:
    with gzip.open(FASHION_FOLDER / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16)
    return np.ascontiguousarray(pixels.reshape(-1, 784).T.astype(np.float32) / 255)


def _labels(part: str) -> Array:
    with gzip.open(FASHION_FOLDER / f"{part}-labels-idx1-ubyte.gz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=8)
