"""Reads the logs of examples/sweep by TensorBoard's own reader, and compares them with the lines of JSON.

    cargo run --release --example sweep -- --models 100 --epochs 2 --log target/log
    python event_files.py target/log

It needs the package tensorboard, and no TensorFlow.
"""

import csv
import json
import math
import pathlib
import sys

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def number(value):
    """A number of a line; what JSON has no number for is a string."""
    return float(value)


def scalars_of(line):
    """The scalars that a line of JSON stands for, by their tags."""
    tag = line["tag"]
    if "value" in line:
        yield tag, number(line["value"])
    for name, value in line.get("quantiles", {}).items():
        yield f"{tag}/{name}", number(value)
    for place, best in enumerate(line.get("top", []), 1):
        yield f"{tag}/top{place}", number(best["value"])
        yield f"{tag}/top{place}_model", number(best["model"])
    if "nan" in line:
        yield f"{tag}/nan", number(line["nan"])


def same(a, b):
    return a == b or math.isnan(a) and math.isnan(b)


def main():
    folder = pathlib.Path(sys.argv[1])
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
    events.Reload()
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    wrong = 0

    found = {}
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            found[tag, event.step] = event.value
    expected = {(tag, line["step"]): np.float32(value) for line in lines for tag, value in scalars_of(line)}
    differing = [key for key in expected if not same(found.get(key, math.inf), float(expected[key]))]
    wrong += len(differing) + (len(found) != len(expected))
    print(f"scalars: {len(found)} of {len(expected)}, {len(differing)} differ")

    for line in (line for line in lines if "histogram" in line):
        value = next(e for e in events.Histograms(line["tag"]) if e.step == line["step"]).histogram_value
        of = line["histogram"]
        is_same = value.bucket == of["buckets"] and value.bucket_limit == of["bucket_limits"]
        is_same &= (value.min, value.max, value.num) == (of["min"], of["max"], of["num"])
        wrong += not is_same
        print(f"histogram {line['tag']}: {int(value.num)} numbers, {'the same' if is_same else 'differs'}")

    for line in (line for line in lines if "text" in line):
        event = events.Tensors(line["tag"] + "/text_summary")[0]
        is_same = event.tensor_proto.string_val[0].decode() == line["text"]
        wrong += not is_same
        print(f"text {line['tag']}: {'the same' if is_same else 'differs'}")

    with open(folder / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    texts = {line["tag"] for line in lines if "text" in line}
    cells = {(tag, int(row["step"])): float(row[tag]) for row in rows for tag in row if row[tag] and tag not in texts}
    of_json = {(tag, line["step"]): value for line in lines for tag, value in scalars_of(line)}
    differing = [key for key in of_json if not same(cells.get(key, math.inf), of_json[key])]
    wrong += len(differing)
    print(f"log.csv: {len(rows)} rows, {len(differing)} numbers differ")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
