#!/usr/bin/env python3
"""Measures neurarch, PyTorch and JAX in one go, in turns, and prints a table.

    python3 benches/compare.py --python PYTHON [--case tiny small medium sweep] [--job train infer]
    python3 benches/compare.py --python PYTHON --case [--single mlp cnn transformer lstm tiny cnns grus]

PYTHON is an interpreter that has torch and jax; this script itself needs nothing but Python. For each case and
job the engines run one right after the other, so that they meet the machine in the same state. `--record`
writes the measurements to benches/record/, named by machine and date. `--peers` takes another script in place
of benches/peers/population.py that understands the same arguments and prints the same lines. `--single` measures
benches/single beside benches/peers/single.py; `--case` without cases leaves the populations out.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
PEERS = ROOT / "benches/peers"


def lines(command):
    """Runs a command and gives the JSON objects that it prints."""
    print("$", *command, file=sys.stderr)
    done = subprocess.run([str(word) for word in command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {command[0]} ended with exit code {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def population(arguments, case, job):
    choice = ["--case", case, "--job", job]
    yield from lines(["cargo", "bench", "--quiet", "--bench", "population", "--", *choice, "--json"])
    yield from lines([arguments.python, arguments.peers, *choice, "--engine", *arguments.engine])


def single(arguments, case):
    yield from lines(["cargo", "bench", "--quiet", "--bench", "single", "--", "--case", case, "--json"])
    yield from lines([arguments.python, PEERS / "single.py", "--case", case])


def of_job(measurement, job):
    """Takes training or inference of a measurement of benches/single."""
    times = {"us_per_step": measurement[f"{job}_us"], "best_us": measurement[f"{job}_best_us"]}
    return {"case": f"1 {measurement['case']}", "job": job, "engine": measurement["engine"], **times}


def sweep(arguments):
    with tempfile.TemporaryDirectory() as out:
        command = ["cargo", "run", "--quiet", "--release", "--example", "sweep", "--", "--out", out]
        print("$", *command, file=sys.stderr)
        told = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        seconds = float(re.search(r"in ([\d.]+) s", told)[1])
        rows = (pathlib.Path(out) / "results.csv").read_text().splitlines()[1:]
        accuracy = sorted(float(row.rsplit(",", 1)[1]) for row in rows)
    yield {
        "case": "sweep",
        "job": "train",
        "engine": "neurarch",
        "seconds": seconds,
        "best_accuracy": round(accuracy[-1], 4),
        "median_accuracy": round(accuracy[len(accuracy) // 2], 4),
    }
    engines = [engine for engine in arguments.engine if engine in ("torch-bmm", "jax-vmap")]
    if engines:
        yield from lines([arguments.python, PEERS / "sweep.py", "--engine", *engines])


def microseconds(measurement):
    return measurement.get("us_per_step") or measurement["seconds"] * 1e6


def table(measurements):
    """Writes the times side by side, with the peers' as multiples of neurarch's."""
    print(f"\n{'case':15}{'job':8}{'engine':12}{'median':>12}{'of neurarch':>13}")
    for each in measurements:
        mine = next(
            microseconds(other)
            for other in measurements
            if (other["case"], other["job"], other["engine"]) == (each["case"], each["job"], "neurarch")
        )
        time = microseconds(each)
        shown = f"{time / 1e6:.2f} s" if time > 1e6 else f"{time / 1e3:.2f} ms"
        notes = ""
        if "read_share" in each:
            notes = f"   {float(each['read_share']):.0%} of the speed of a plain read"
        if "median_accuracy" in each:
            notes = f"   accuracy: best {each['best_accuracy']:.2%}, median {each['median_accuracy']:.2%}"
        print(f"{each['case']:15}{each['job']:8}{each['engine']:12}{shown:>12}{time / mine:>12.2f}×{notes}")


def machine():
    model = platform.processor() or platform.machine()
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
        model = re.search(r"model name\s*:\s*(.*)", text)[1]
    except (OSError, TypeError):
        pass
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.platform()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="an interpreter with torch and jax")
    parser.add_argument("--peers", default=PEERS / "population.py", type=os.path.abspath)
    parser.add_argument("--case", nargs="*", default=["tiny", "small", "medium", "sweep"])
    parser.add_argument("--single", nargs="*", default=[])
    parser.add_argument("--job", nargs="*", default=["train", "infer"])
    parser.add_argument("--engine", nargs="*", default=["torch-vmap", "torch-bmm", "jax-vmap"])
    parser.add_argument("--record", action="store_true", help="keep the measurements in benches/record/")
    arguments = parser.parse_args()

    measurements = []
    for case in arguments.case:
        if case == "sweep":
            measurements += sweep(arguments)
        else:
            for job in arguments.job:
                measurements += population(arguments, case, job)
    for case in arguments.single:
        both = list(single(arguments, case))
        measurements += [of_job(each, job) for job in arguments.job for each in both]
    table(measurements)
    if arguments.record:
        today = datetime.date.today().isoformat()
        about = machine()
        name = re.sub(r"\W+", "-", f"{about['cpu']} {about['cores']} cores").strip("-").lower()
        path = ROOT / "benches/record" / f"{name}-{today}.json"
        rows = ",\n".join("    " + json.dumps(each) for each in measurements)
        text = f'{{\n  "date": "{today}",\n  "machine": {json.dumps(about)},\n  "measurements": [\n{rows}\n  ]\n}}\n'
        path.write_text(text)
        print(f"\n{path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
