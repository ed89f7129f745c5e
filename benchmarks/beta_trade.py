"""How beta trades nearness to the boundary, label truth and diversity against each other.

    python benchmarks/beta_trade.py --dataset mnist --betas 0 0.1 0.3 1 3 --out runs/beta

One classifier, one oracle, and one GAN per beta with the preset's settings. The GANs share their
epochs at beta 0 (``delay_epochs``), which are the same for every beta. Writes ``beta_trade.md``
and one picture per beta into ``--out``; a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import bcgan_tf
from bcgan_tf.defenses.presets import defense
from bcgan_tf.evaluation.generated_set import measure_generated_set
from bcgan_tf.runs.directory import RunDirectory
from bcgan_tf.runs.environment import environment
from bcgan_tf.settings import presets
from bcgan_tf.training.fit import fit
from bcgan_tf.workflows import train as training
from bcgan_tf.workflows.harden import draw_samples

COLUMNS = {
    "oracle_accuracy": "oracle says c",
    "classifier_accuracy": "C says c",
    "confidence": "C's mean max-probability",
    "entropy": "C's entropy (nats)",
    "margin": "top-1 minus top-2 logit",
    "useful": "oracle says c and C below 0.9",
    "relative_diversity": "intra-class distance / real",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--betas", type=float, nargs="+", default=[0, 0.1, 0.3, 1, 3])
    parser.add_argument("--gan-epochs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/beta"))
    args = parser.parse_args()

    recipe = presets.recipe(args.dataset, args.preset)
    options = {"gan_epochs": args.gan_epochs} if args.gan_epochs else {}
    base = defense("bcgan", args.dataset, args.preset, options=options, seed=args.seed)
    data = bcgan_tf.load_dataset(args.dataset)
    rows = []
    settings = recipe.to_dict() | {k: v for k, v in base.config().items() if k != "beta"}
    with RunDirectory.create(
        args.out, "beta-trade", {**settings, "seed": args.seed}, resume=True
    ) as run:
        classifier = keras.models.load_model(training.train(run, data, recipe, seed=args.seed))
        oracle = keras.models.load_model(training.train_oracle(run, data, recipe, seed=args.seed))
        shared = run.checkpoints / "shared"
        for beta in args.betas:
            rows.append(one_beta(run, data, classifier, oracle, recipe, base, beta, shared))
            (args.out / "beta_trade.md").write_text(table(rows, base, data.name))
    print((args.out / "beta_trade.md").read_text())


def one_beta(run, data, classifier, oracle, recipe, base, beta, shared) -> dict:
    """Trains (or finds) the GAN of one beta and measures its samples."""
    stage = f"beta-{beta:g}"
    if run.stage_done(stage):
        return run.stage_payload(stage)
    hardening = dataclasses.replace(base, beta=beta)
    start = time.perf_counter()
    gan = hardening.build_gan(classifier, data)
    folder = run.checkpoints / stage
    common = {"batch_size": base.gan_batch_size, "seed": base.seed, "resume": True}
    delay = min(int(base.delay_epochs), base.gan_epochs)
    if not folder.exists() and delay:
        fit(gan, data.train, epochs=delay, directory=shared, **common)
        shutil.copytree(shared, folder)
    fit(gan, data.train, epochs=base.gan_epochs, directory=folder, **common)
    labels = np.arange(recipe.generated_samples) % data.num_classes
    measures = measure_generated_set(
        gan.generate(labels, seed=1),
        labels,
        classifier=classifier,
        oracle=oracle,
        real_images=data.validation.scaled(),
        real_labels=data.validation.labels,
    ).to_dict()
    draw_samples(gan, run.figures / f"beta_{beta:g}.png", data.class_names, title=f"beta {beta:g}")
    row = {"beta": beta, "seconds": time.perf_counter() - start, **measures}
    print(json.dumps(row), flush=True)
    run.finish_stage(stage, row)
    return row


def table(rows, base, dataset) -> str:
    """The rows as Markdown, with what is needed to repeat them."""
    env = environment()
    head = ["beta", *COLUMNS.values()]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = [f"{row['beta']:g}", *(f"{row[key]:.3f}" for key in COLUMNS)]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append(
        f"\n{dataset}, n = {rows[0]['n']} samples, seed {base.seed}, {base.gan_epochs} GAN epochs "
        f"(beta 0 for {base.delay_epochs:g}, then rising over {base.warmup_epochs:g}), "
        f"TensorFlow {env['tensorflow']}, Keras {env['keras']}, {os.cpu_count()} CPU cores."
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
