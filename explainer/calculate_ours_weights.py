"""Calculate the RPS-LJE weights of a trained model: python explainer/calculate_ours_weights.py --model CNN --lr 0.01"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

from config import positive, run_command
from explainer.command_line import parser, run


def main():
    options = parser("ours")
    options.add_argument("--lr", default=0.01, type=positive, help="the step of gradient ascent to the anchor")
    options = options.parse_args()
    run(__file__, "ours", options, {"lr": options.lr, "damping": options.damping, "rcond": options.rcond})


if __name__ == "__main__":
    run_command(main)
