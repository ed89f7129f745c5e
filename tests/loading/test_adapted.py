"""Users' models of another shape, range, type or output are used as they are, and given back."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from bcgan_tf.loading.classifier import adapted_classifier, load_classifier
from bcgan_tf.networks.classifiers import small_cnn
from bcgan_tf.settings.convention import Convention
from helpers.classifiers import SHAPE, Subclassed, functional, on_top, refused

IMAGES = np.random.default_rng(0).random((4, *SHAPE), "float32")
COLORED = np.random.default_rng(1).random((4, 8, 8, 3), "float32")


def given_back(model: keras.Model, own: object, images: np.ndarray = IMAGES, **options) -> tuple:
    """The logits of what is made of a model, and that it answers in its own way afterwards.

    The weights of the hardened one are others: all are halved.
    """
    found = adapted_classifier(model, image_shape=images.shape[1:], **options)
    assert found.changed
    logits = np.asarray(found.classifier(images))
    before = keras.tree.flatten(model(own, training=False))
    with keras.device("cpu"):
        trained = keras.models.clone_model(found.classifier)
    trained.set_weights([weight / 2 for weight in found.classifier.get_weights()])
    back = found.restored(trained)
    assert type(back) is type(model) and back.input_shape == model.input_shape
    for mine, old in zip(back.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, old / 2)
    for now, then in zip(keras.tree.flatten(model(own, training=False)), before, strict=True):
        np.testing.assert_array_equal(now, then)  # the given one is as it was
    back_in = load_classifier(back, image_shape=images.shape[1:], **options)
    np.testing.assert_allclose(back_in(images), trained(images), atol=1e-5)
    return logits, found.lines


# Shapes and types


@pytest.mark.parametrize(
    ("declared", "own", "line"),
    [
        ((8, 8), IMAGES[..., 0], "without a channel axis"),
        ((64,), IMAGES.reshape(4, 64), "as vectors"),
        ((3, 8, 8), COLORED.transpose(0, 3, 1, 2), "channels first"),
    ],
)
def test_axes(declared, own, line):
    model = functional(shape=declared)
    images = COLORED if declared[0] == 3 else IMAGES
    logits, lines = given_back(model, own, images)
    np.testing.assert_allclose(logits, model(own), atol=1e-6)
    assert len(lines) == 1 and line in lines[0]


def test_a_shape_that_nothing_solves():
    refused(small_cnn((28, 28, 1), 3), "choose the data set", image_shape=(32, 32, 3))


def test_integer_pixels():
    images = keras.Input(SHAPE, dtype="uint8")
    flat = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    model = keras.Model(images, keras.layers.Dense(3)(flat))
    pixels = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), np.uint8)
    logits, lines = given_back(
        model, pixels, pixels.astype("float32") / 255, convention=Convention(input_range="0..255")
    )
    np.testing.assert_allclose(logits, model(pixels), atol=1e-5)
    assert "takes uint8" in lines[0] and "--input-range 0..255" in lines[1]


def test_a_fixed_batch_size():
    images = keras.Input(batch_shape=(4, *SHAPE))
    model = keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(images)))
    logits, lines = given_back(model, IMAGES)
    np.testing.assert_allclose(logits, model(IMAGES), atol=1e-6)
    assert "batches of 4" in lines[0]


def test_a_batch_size_inside_the_graph():
    images = keras.Input(batch_shape=(32, *SHAPE))
    pixels = keras.ops.reshape(images, (32, 64))
    refused(keras.Model(images, keras.layers.Dense(3)(pixels)), "fails on a batch")


# The range of the pixels


def by_255(pixels):
    return pixels / 255.0


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [keras.layers.Rescaling(1 / 255)],
        lambda: [keras.layers.Rescaling(1 / 127.5, offset=-1)],
        lambda: [keras.layers.Normalization(mean=33.3, variance=78.6**2)],
        lambda: [keras.layers.RandomTranslation(0.1, 0.1), keras.layers.Rescaling(1 / 255)],
        lambda: [by_255],
        lambda: [lambda x: (x - 127.5) * (1 / 127.5)],
        lambda: [keras.Sequential([keras.Input(SHAPE), keras.layers.Rescaling(1 / 255)])],
        lambda: [keras.Sequential([keras.layers.RandomBrightness(0.2, (0, 255))]), by_255],
    ],
)
@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_pixels_expected_up_to_255(layers, kind):
    model = functional(*layers())
    if kind == "sequential":
        model = keras.Sequential([keras.Input(SHAPE), model])
    refused(model, r"\[0, 255\]", "--input-range 0..255")
    adapted = load_classifier(model, convention=Convention(input_range="0..255"))
    expected = model(255 * IMAGES, training=False)
    np.testing.assert_allclose(adapted(IMAGES, training=False), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("convention", "own"),
    [
        (Convention(input_range="-1..1"), 2 * COLORED - 1),
        (Convention(mean=(0.5,), std=(0.25,)), (COLORED - 0.5) / 0.25),
        (
            Convention(mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.4)),
            (COLORED - [0.5, 0.4, 0.3]) / [0.1, 0.2, 0.4],
        ),
        (Convention(std=(0.1, 0.2, 0.4)), COLORED / [0.1, 0.2, 0.4]),
        *(
            (
                Convention(input_range=mode),
                keras.applications.imagenet_utils.preprocess_input(255 * COLORED, mode=mode),
            )
            for mode in ("caffe", "torch")
        ),
    ],
)
def test_pixels_of_other_ranges(convention, own):
    """Those of keras.applications by its own function."""
    model = functional(shape=(8, 8, 3))
    logits, _ = given_back(model, np.float32(own), COLORED, convention=convention)
    np.testing.assert_allclose(logits, model(np.float32(own)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(convention.from_unit(COLORED), own, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(convention.to_unit(np.float32(own)), COLORED, atol=1e-5)


def test_constants_of_other_channels():
    convention = Convention(mean=(0.5, 0.4, 0.3))
    refused(functional(), r"of other than the 1 channel\(s\)", convention=convention)


# Outputs


PROBABILITIES = {
    "dense": lambda: functional(activation="softmax"),
    "sigmoids": lambda: functional(activation="sigmoid"),
    "activation layer": lambda: on_top(functional(), keras.layers.Activation("softmax")),
    "softmax layer": lambda: on_top(functional(), keras.layers.Softmax()),
    "operation": lambda: on_top(functional(), keras.ops.softmax),
    "sigmoid operation": lambda: on_top(functional(), keras.ops.sigmoid),
    "sequential": lambda: keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
            keras.layers.Softmax(),
        ]
    ),
    "nested": lambda: keras.Sequential([keras.Input(SHAPE), functional(activation="softmax")]),
    "deep inside": lambda: keras.Sequential(
        [keras.Input(SHAPE), on_top(functional(), keras.layers.Softmax())]
    ),
}


@pytest.mark.parametrize("kind", PROBABILITIES)
def test_probabilities_become_logits(kind):
    keras.utils.set_random_seed(3)
    model = PROBABILITIES[kind]()
    function = "sigmoid" if "sigmoid" in kind else "softmax"
    logits, lines = given_back(model, IMAGES, num_classes=3)
    assert lines == (f"{function} at the end taken off: its inputs are the logits",)
    np.testing.assert_allclose(getattr(keras.ops, function)(logits), model(IMAGES), atol=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_unit_becomes_two_logits(activation):
    model = functional(classes=1, activation=activation)
    logits, lines = given_back(model, IMAGES, num_classes=2)
    unit = np.asarray(model(IMAGES))[:, 0]
    if activation:
        unit = np.log(unit / (1 - unit))
    np.testing.assert_allclose(logits, np.stack([np.zeros(4), unit], axis=1), atol=1e-5)
    assert lines[-1] == "its single unit becomes the logits of two classes"


def test_one_of_several_outputs():
    images = keras.Input(SHAPE)
    flat = keras.layers.Flatten()(images)
    box = keras.layers.Dense(4, name="box")(flat)
    kind = keras.layers.Dense(3, activation="softmax", name="kind")(flat)
    for outputs in ([box, kind], {"box": box, "kind": kind}):
        model = keras.Model(images, outputs)
        refused(model, "has the outputs box, kind", "--output")
        refused(model, "no output 'face'", convention=Convention(output="face"))
        found = adapted_classifier(model, convention=Convention(output="kind"))
        both = model(IMAGES)
        expected = both["kind"] if isinstance(both, dict) else both[1]
        logits = found.classifier(IMAGES)
        np.testing.assert_allclose(keras.ops.softmax(logits), expected, atol=1e-6)
        trained = keras.models.clone_model(found.classifier)
        trained.set_weights([weight / 2 for weight in found.classifier.get_weights()])
        back = found.restored(trained)
        np.testing.assert_array_equal(back.get_layer("box").kernel, model.get_layer("box").kernel)
        kernel = model.get_layer("kind").kernel
        np.testing.assert_array_equal(back.get_layer("kind").kernel, kernel / 2)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_hidden_softmax_is_seen_by_its_values(dtype):
    class Hidden(Subclassed):
        def call(self, images):
            return keras.ops.softmax(super().call(images))

    model = Hidden(dtype=dtype)
    found = adapted_classifier(model, image_shape=SHAPE)
    assert "cannot be taken off" in found.lines[0]
    probabilities = np.asarray(keras.ops.cast(model(IMAGES), "float32"))
    np.testing.assert_allclose(
        keras.ops.softmax(found.classifier(IMAGES)), probabilities, atol=0.01
    )


def test_a_user_s_own_layers_learn_on_and_are_seen():
    """What the copied end of a model knows is taken up after a training of the original."""
    model = functional(activation="softmax")
    found = adapted_classifier(model)
    model.layers[-1].set_weights([2 * weight for weight in model.layers[-1].get_weights()])
    found.refresh()
    np.testing.assert_allclose(
        keras.ops.softmax(found.classifier(IMAGES)), model(IMAGES), atol=1e-6
    )


def test_a_model_of_ours_is_itself():
    model = functional()
    found = adapted_classifier(model)
    assert found.classifier is model is found.given and not found.lines
    assert len(model.layers[-1]._inbound_nodes) == 1
