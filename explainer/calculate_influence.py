"""Calculate the influence functions of a trained model: python explainer/calculate_influence.py --model Xgboost"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

from config import run_command
from explainer.command_line import parser, run


def main():
    options = parser("IF").parse_args()
    run(__file__, "IF", options, {"damping": options.damping, "rcond": options.rcond})


if __name__ == "__main__":
    run_command(main)
