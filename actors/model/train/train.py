"""Trains the demonstration model on drawn pictures and writes its package: model, settings, self-test and card.

    farmiq-loadtest render --count 5000 --seed 20260101 --out PICTURES
    train.py PICTURES actors/model

A small convolutional network on the CPU; a few minutes. The last tenth of the pictures is never trained on.
"""

import argparse
import csv
import hashlib
import io
import os
import pathlib
import shutil
import sys
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnx.reference
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

WIDTH, HEIGHT = 128, 96
MEAN = [0.42, 0.38, 0.33]
STD = [0.22, 0.20, 0.19]
CHANNELS = [3, 16, 32, 64, 64]
HIDDEN = 48
BATCH = 50
VERSION = "demo-1.0.0"
OPSET = 13
# How far another decoder and scaler may move the answer to the self-test, kilograms.
SELF_TEST_KG = 0.05


def load(folder):
    """Pictures as bytes (count, 3, height, width) and their true weights in kilograms."""
    with open(folder / "weights.csv") as table:
        rows = list(csv.DictReader(table))
    if len(rows) < 10 * BATCH:
        sys.exit(f"{folder} holds {len(rows)} pictures; render at least {10 * BATCH}")
    images = np.empty((len(rows), 3, HEIGHT, WIDTH), np.uint8)
    for index, row in enumerate(rows):
        images[index] = pixels(folder / row["file"])
        progress("read", index + 1, len(rows))
    return images, np.array([float(row["weight_kg"]) for row in rows], np.float32), rows


def pixels(path):
    """One picture as the engine prepares it: scaled over the area of its pixels, channels first."""
    with Image.open(path) as image:
        small = image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    return np.asarray(small).transpose(2, 0, 1)


def progress(what, done, total, text=""):
    """A line that rewrites itself on a terminal and appears now and then elsewhere."""
    is_last = done == total
    if sys.stderr.isatty():
        print(f"\r{what} {done}/{total} {text}", end="\n" if is_last else "", file=sys.stderr, flush=True)
    elif is_last or done % max(1, total // 10) == 0:
        print(f"{what} {done}/{total} {text}", file=sys.stderr, flush=True)


def initial(key):
    """Weights of every layer after He."""
    shapes = [(after, before, 3, 3) for before, after in zip(CHANNELS, CHANNELS[1:])]
    shapes += [(HIDDEN, CHANNELS[-1]), (1, HIDDEN)]
    keys = jax.random.split(key, len(shapes))
    scale = lambda shape: (2.0 / np.prod(shape[1:])) ** 0.5
    layers = [[jax.random.normal(k, shape) * scale(shape), jnp.zeros(shape[0])] for k, shape in zip(keys, shapes)]
    layers[-1][1] = jnp.array([2.0])  # The mean weight: training need not find it first.
    return layers


def predict(layers, images):
    """Weights in kilograms of normalized pictures."""
    x = images
    for kernel, bias in layers[: len(CHANNELS) - 1]:
        x = jax.lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)))
        x = jax.nn.relu(x + bias[None, :, None, None])
    x = x.mean(axis=(2, 3))
    (hidden, hidden_bias), (last, last_bias) = layers[len(CHANNELS) - 1 :]
    x = jax.nn.relu(x @ hidden.T + hidden_bias)
    return (x @ last.T + last_bias)[:, 0]


def normalize(images):
    mean, std = (jnp.array(values, jnp.float32)[None, :, None, None] for values in (MEAN, STD))
    return (images.astype(jnp.float32) / 255.0 - mean) / std


def loss(layers, images, weights):
    """Like the absolute error, but smooth near zero."""
    error = predict(layers, images) - weights
    return jnp.mean(jnp.sqrt(error**2 + 0.05**2))


@jax.jit
def step(layers, moments, images, weights, key, rate, count):
    """One step of Adam on pictures that are mirrored and lit by chance."""
    keys = jax.random.split(key, 3)
    images = normalize(images)
    mirrored = jax.random.bernoulli(keys[0], 0.5, (images.shape[0], 1, 1, 1))
    images = jnp.where(mirrored, images[:, :, :, ::-1], images)
    turned = jax.random.bernoulli(keys[1], 0.5, (images.shape[0], 1, 1, 1))
    images = jnp.where(turned, images[:, :, ::-1, :], images)
    images = images * jax.random.uniform(keys[2], (images.shape[0], 1, 1, 1), minval=0.9, maxval=1.1)
    value, slopes = jax.value_and_grad(loss)(layers, images, weights)
    first, second = moments
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, slopes)
    second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, slopes)
    move = lambda w, m, v: w - rate * (m / (1 - 0.9**count)) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)
    return jax.tree.map(move, layers, first, second), (first, second), value


def fit(images, weights, epochs, seed):
    key = jax.random.PRNGKey(seed)
    order = np.random.default_rng(seed)
    layers = initial(key)
    moments = tuple(jax.tree.map(jnp.zeros_like, layers) for _ in range(2))
    steps = len(images) // BATCH
    count = 0
    for epoch in range(epochs):
        total = 0.0
        shuffled = order.permutation(len(images))
        for number in range(steps):
            count += 1
            share = count / (epochs * steps)
            rate = 2e-3 * min(1.0, count / 100) * 0.5 * (1 + np.cos(np.pi * share))
            chosen = shuffled[number * BATCH : (number + 1) * BATCH]
            key, now = jax.random.split(key)
            layers, moments, value = step(layers, moments, images[chosen], weights[chosen], now, rate, count)
            total += float(value)
        progress("epoch", epoch + 1, epochs, f"loss {total / steps:.4f}")
    return layers


def judge(layers, images):
    ask = jax.jit(lambda batch: predict(layers, normalize(batch)))
    return np.concatenate([np.asarray(ask(images[at : at + BATCH])) for at in range(0, len(images), BATCH)])


def export(layers):
    """The network as ONNX, of four kinds of operators and a Flatten."""
    nodes, tensors, name = [], [], "image"
    convolutions = len(CHANNELS) - 1
    for index, (kernel, bias) in enumerate(layers):
        tensors += [
            numpy_helper.from_array(np.asarray(kernel, np.float32), f"w{index}"),
            numpy_helper.from_array(np.asarray(bias, np.float32), f"b{index}"),
        ]
        if index < convolutions:
            nodes.append(
                helper.make_node(
                    "Conv", [name, f"w{index}", f"b{index}"], [f"c{index}"],
                    kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1],
                )
            )
            nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"]))
            name = f"r{index}"
            if index == convolutions - 1:
                nodes.append(helper.make_node("GlobalAveragePool", [name], ["pooled"]))
                nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], axis=1))
                name = "flat"
        else:
            is_last = index == len(layers) - 1
            output = "weight_kg" if is_last else f"g{index}"
            nodes.append(helper.make_node("Gemm", [name, f"w{index}", f"b{index}"], [output], transB=1))
            if not is_last:
                nodes.append(helper.make_node("Relu", [output], [f"r{index}"]))
                name = f"r{index}"
    graph = helper.make_graph(
        nodes, "weight-of-a-bird",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, HEIGHT, WIDTH])],
        [helper.make_tensor_value_info("weight_kg", TensorProto.FLOAT, [1, 1])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="train.py")
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model.SerializeToString()


def check_export(model, images, expected):
    """The written network must say what the trained one says."""
    session = onnx.reference.ReferenceEvaluator(onnx.load_from_string(model))
    for image, kilograms in zip(images, expected):
        (said,) = session.run(None, {"image": np.asarray(normalize(jnp.asarray(image[None])))})
        if abs(float(said[0, 0]) - kilograms) > 1e-3:
            sys.exit(f"the exported model says {said[0, 0]} kg, the trained one {kilograms} kg")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=pathlib.Path, help="folder with pictures and weights.csv")
    parser.add_argument("package", type=pathlib.Path, help="folder the package is written to")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    started = time.monotonic()
    images, weights, rows = load(args.pictures)
    held_out = len(rows) // 10
    layers = fit(images[:-held_out], weights[:-held_out], args.epochs, args.seed)
    said = judge(layers, images[-held_out:])
    model = export(layers)
    check_export(model, images[-3:], said[-3:])
    truth = weights[-held_out:]
    write(args, model, rows, truth, said, time.monotonic() - started)


def write(args, model, rows, truth, said, seconds):
    error = np.abs(said - truth)
    baseline = np.abs(truth - np.median(truth)).mean()
    figures = {
        "mae": error.mean(), "p95": np.percentile(error, 95), "relative": 100 * (error / truth).mean(),
        "baseline": baseline, "bias": (said - truth).mean(),
        "confidence": (error < truth / 10).mean(),
    }
    # The picture of the self-test: the held-out bird nearest to two kilograms.
    chosen = int(np.argmin(np.abs(truth - 2.0)))
    sample = rows[len(rows) - len(truth) + chosen]
    shutil.copyfile(args.pictures / sample["file"], args.package / "selftest.jpg")
    (args.package / "model.onnx").write_bytes(model)
    settings = SETTINGS.format(
        version=VERSION, width=WIDTH, height=HEIGHT, mean=MEAN, std=STD,
        confidence=figures["confidence"], least=said[chosen] - SELF_TEST_KG, greatest=said[chosen] + SELF_TEST_KG,
    )
    (args.package / "model.toml").write_text(settings)
    card = CARD.format(
        version=VERSION, **figures, bands=bands(truth, error), trained=len(rows) - len(truth), held_out=len(truth),
        seed=args.seed, epochs=args.epochs, minutes=seconds / 60, width=WIDTH, height=HEIGHT,
        kib=len(model) / 1024, sha256=hashlib.sha256(model).hexdigest(), true_kg=float(sample["weight_kg"]),
        said_kg=said[chosen],
    )
    (args.package / "MODEL_CARD.md").write_text(card)
    print(f"mean absolute error on {len(truth)} held-out pictures: {figures['mae']:.3f} kg, {len(model)} bytes")


def bands(truth, error):
    text = io.StringIO()
    for low, high in zip([0.1, 0.5, 1.0, 2.0, 3.0], [0.5, 1.0, 2.0, 3.0, 4.0]):
        chosen = (truth >= low) & (truth < high)
        if chosen.any():
            mae, share = error[chosen].mean(), 100 * (error[chosen] / truth[chosen]).mean()
            text.write(f"| {low:.1f} to {high:.1f} kg | {chosen.sum()} | {mae:.3f} kg | {share:.1f} % |\n")
    return text.getvalue().rstrip()


SETTINGS = """\
# The bundled demonstration model. Written by train/train.py; see MODEL_CARD.md.
version = "{version}"

[input]
width = {width}
height = {height}
mean = {mean}
std = {std}

# The network has no confidence of its own: this is the share of held-out pictures on which it was wrong by less than
# a tenth of the weight.
[output]
meaning = "regression"
confidence = {confidence:.2f}

[self_test]
image = "selftest.jpg"
weight_kg_min = {least:.3f}
weight_kg_max = {greatest:.3f}
"""

CARD = """\
# The demonstration model `{version}`

It reads the weight of a bird on a scale from a picture taken from above. **It is a demonstration**: it was trained on
drawings alone, so it shows that pictures travel through the engine and come out as numbers that depend on nothing but
their pixels. It has never seen a real bird. Do not act on its weights.

| | |
|---|---|
| input | one picture, scaled to {width} x {height}, RGB |
| output | weight in kilograms |
| size | {kib:.0f} KiB of ONNX: four convolutions, a global mean, two dense layers |
| sha256 | `{sha256}` |
| training | {trained} pictures, {epochs} epochs, seed {seed}, {minutes:.1f} minutes on a CPU |
| mean absolute error | **{mae:.3f} kg** ({relative:.1f} % of the weight) on {held_out} held-out pictures |
| 95 % of errors below | {p95:.3f} kg |
| mean deviation | {bias:+.3f} kg |
| for comparison | {baseline:.3f} kg is the error of always saying the median |
| self-test | `selftest.jpg` weighs {true_kg:.3f} kg, the model says {said_kg:.3f} kg |

| true weight | pictures | mean absolute error | of the weight |
|---|---|---|---|
{bands}

## The pictures

Drawn by `farmiq-loadtest render`, weights evenly between 0.1 and 4 kg. The area of a body seen from above is
0.0275 m2 times its weight in kilograms to the power 2/3 (surface of similar bodies, see `loadtest/src/render.rs`), with
2 % of deviation from bird to bird and 0.5 % from the height of the camera, which together limit any judge to an error
of about 2.7 % of the weight. Light, color of the lamps, blur, noise, turn, place, litter, soil on the scale, and up to
three neighbors that look in over the edge are chance. Held-out pictures come from the same rule, with other seeds.

## Limits

- One camera height: a meter is 800 pixels of 640 x 480. Another camera, another lens, another weight.
- White broilers, one bird on the scale. Two birds, an empty scale or a hand get a number too.
- Below 0.1 and above 4 kg it was never shown anything.
- It does not know how sure it is. The confidence of every result is the same: {confidence:.2f}, the share of held-out
  pictures on which it was wrong by less than a tenth of the weight.

## Train it again

`make model` draws the pictures, trains, and writes this folder. The seed makes weights and pictures the same; floating
point sums may differ between machines, and with them the last digits.
"""

if __name__ == "__main__":
    main()
