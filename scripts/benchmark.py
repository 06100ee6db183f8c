"""Time and memory of our code beside the bare operations, or the plain route, on this machine.

python scripts/benchmark.py explainers    RPS-LJE at the size of the paper's LSTM: n = 17,500, d = 512
python scripts/benchmark.py cnn           training ResNet-20: images per second, and the accuracy over three seeds
python scripts/benchmark.py rnn           training the LSTM at full scale: reviews and tokens per second
python scripts/benchmark.py attribution   the library: self-influence and top 5, n = 10,000 and 50,000, d = 64 and 512
python scripts/benchmark.py scale         the library on a million points that lie on the disk
python scripts/benchmark.py cd            contextual decomposition: milliseconds for each mask
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

import sys
from importlib import import_module

from config import ArgumentParser, run_command

BENCHMARKS = "explainers", "cnn", "rnn", "attribution", "scale", "cd"  # modules of benchmarks


def main():
    parser = ArgumentParser(description="Time our code beside the bare operations.")
    chosen = parser.add_subparsers(dest="what", required=True, metavar="{" + ",".join(BENCHMARKS) + "}")
    wanted = set(BENCHMARKS) & set(sys.argv[1:2]) or set(BENCHMARKS)  # alone, so that it is measured alone
    modules = {name: import_module(f"benchmarks.{name}") for name in BENCHMARKS if name in wanted}
    for name, module in modules.items():
        module.add_options(chosen.add_parser(name, description=module.__doc__, help=module.__doc__))
    options = parser.parse_args()
    modules[options.what].run(options)


if __name__ == "__main__":
    run_command(main)
