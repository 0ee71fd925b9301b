"""The shapes of the matrices of four networks, as their papers and public implementations give them.

A convolution of kernel k is a matrix of (outputs, k k inputs). Embeddings, biases and normalisations are left out:
they are no matrix products.

- ResNet-50: He et al., Deep Residual Learning for Image Recognition, 2015, table 1. 25.5 M weights.
- MobileNetV2: Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018, table 2. 3.5 M.
- YOLOv8n: Ultralytics, yolov8.yaml at scale n, 80 classes. 3.2 M.
- BERT-base: Devlin et al., BERT, 2018: encoder and pooler. 85.5 M.
"""

from __future__ import annotations

from crossbar.mapping.shapes import MatrixShape


def _convolution(name: str, inputs: int, outputs: int, kernel: int = 1) -> MatrixShape:
    return MatrixShape(name, outputs=outputs, inputs=inputs * kernel * kernel)


def resnet50() -> list[MatrixShape]:
    shapes = [_convolution("stem", 3, 64, 7)]
    inputs = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=2):
        for block in range(blocks):
            name = f"conv{stage}.{block}"
            if block == 0:
                shapes.append(_convolution(f"{name}.shortcut", inputs, 4 * width))
            shapes += [
                _convolution(f"{name}.reduce", inputs, width),
                _convolution(f"{name}.convolve", width, width, 3),
                _convolution(f"{name}.expand", width, 4 * width),
            ]
            inputs = 4 * width
    return [*shapes, MatrixShape("classes", outputs=1000, inputs=2048)]


def mobilenetv2() -> list[MatrixShape]:
    shapes = [_convolution("stem", 3, 32, 3)]
    inputs = 32
    stages = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
    for stage, (expansion, outputs, blocks) in enumerate(stages, start=1):
        for block in range(blocks):
            name, hidden = f"bottleneck{stage}.{block}", inputs * expansion
            if expansion > 1:
                shapes.append(_convolution(f"{name}.expand", inputs, hidden))
            shapes.append(MatrixShape(f"{name}.depthwise", outputs=1, inputs=9, groups=hidden))
            shapes.append(_convolution(f"{name}.project", hidden, outputs))
            inputs = outputs
    return [*shapes, _convolution("last", 320, 1280), MatrixShape("classes", outputs=1000, inputs=1280)]


def _c2f(name: str, inputs: int, outputs: int, bottlenecks: int) -> list[MatrixShape]:
    width = outputs // 2
    shapes = [_convolution(f"{name}.split", inputs, outputs)]
    for index in range(2 * bottlenecks):
        shapes.append(_convolution(f"{name}.{index}", width, width, 3))
    return [*shapes, _convolution(f"{name}.join", (2 + bottlenecks) * width, outputs)]


def yolov8n() -> list[MatrixShape]:
    shapes = [_convolution("backbone.0", 3, 16, 3)]
    for index, (inputs, outputs, bottlenecks) in enumerate(
        ((16, 32, 1), (32, 64, 2), (64, 128, 2), (128, 256, 1)), start=1
    ):
        shapes.append(_convolution(f"backbone.{index}", inputs, outputs, 3))
        shapes += _c2f(f"backbone.{index}.c2f", outputs, outputs, bottlenecks)
    shapes += [_convolution("sppf.in", 256, 128), _convolution("sppf.out", 512, 256)]
    shapes += _c2f("neck.0", 384, 128, 1) + _c2f("neck.1", 192, 64, 1)
    shapes += [_convolution("neck.2", 64, 64, 3), *_c2f("neck.3", 192, 128, 1)]
    shapes += [_convolution("neck.4", 128, 128, 3), *_c2f("neck.5", 384, 256, 1)]
    for inputs in (64, 128, 256):
        for branch, width in (("box", 64), ("class", 80)):
            shapes += [
                _convolution(f"head.{inputs}.{branch}.0", inputs, width, 3),
                _convolution(f"head.{inputs}.{branch}.1", width, width, 3),
                _convolution(f"head.{inputs}.{branch}.2", width, width),
            ]
    return [*shapes, _convolution("head.distances", 16, 1)]


def bert_base() -> list[MatrixShape]:
    width, hidden = 768, 3072
    shapes = []
    for layer in range(12):
        for name in ("query", "key", "value", "attention"):
            shapes.append(MatrixShape(f"{layer}.{name}", outputs=width, inputs=width))
        shapes.append(MatrixShape(f"{layer}.widen", outputs=hidden, inputs=width))
        shapes.append(MatrixShape(f"{layer}.narrow", outputs=width, inputs=hidden))
    return [*shapes, MatrixShape("pooler", outputs=width, inputs=width)]


NETWORKS = {
    "ResNet-50": resnet50(),
    "MobileNetV2": mobilenetv2(),
    "YOLOv8n": yolov8n(),
    "BERT-base": bert_base(),
}
