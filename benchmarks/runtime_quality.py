"""Quality of a model in every runtime and precision: the same clips rebuilt by each, beside the copy baseline.

Run: python benchmarks/runtime_quality.py CLIPS [--model lite-256] [--hold-out 0.1] [--every 10] [--with FOLDER ...]
(FOLDER: an exported folder to measure too, for example an int8 one; `dagan bench` tells by how much pictures differ)
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from dagan.cli.evaluate import print_table, specs_of
from dagan.engine.sessions import available
from dagan.errors import InputError
from dagan.evaluate.protocols import EvaluateOptions, evaluate_reconstruction


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--model", default="lite-256")
    parser.add_argument("--hold-out", type=float, default=0.0)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--with", dest="folders", nargs="*", default=[])
    options = parser.parse_args()
    wanted = [(options.model, runtime, precision) for runtime in available() for precision in ("float32", "bfloat16", "int8")]
    wanted += [(folder, runtime, "auto") for folder in options.folders for runtime in available()[1:]]
    specs = []
    for model, runtime, precision in wanted:
        try:
            (spec,) = specs_of([model], False, runtime, "cpu", precision, "auto")
            specs.append(replace(spec, name=f"{spec.name}, {runtime}, {spec.precision}"))
        except InputError as error:
            print(f"left out: {error}")
    print_table(evaluate_reconstruction(options.clips, specs, EvaluateOptions(hold_out=options.hold_out, every=options.every)).evaluation)


if __name__ == "__main__":
    main()
