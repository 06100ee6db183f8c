"""Calculate RPS-l2's weights of a trained model.

python explainer/calculate_representer_weights.py --model RNN --lmbd 0.003 --epoch 3000
"""

if __name__ == "__main__":
    from models.stopping import stoppable

    stoppable()

from tqdm import tqdm

from config import at_least_one, positive, run_command, share
from explainer.command_line import parser, run
from explainer.rps_l2 import TOLERANCE


def main():
    options = parser("rep", damping=False)
    options.add_argument("--lmbd", default=0.003, type=positive, help="the l2 penalty")
    options.add_argument("--epoch", default=3000, type=at_least_one, help="fine-tune for at most so many steps")
    options.add_argument(
        "--tolerance", default=TOLERANCE, type=share, help="stop when the gradient is this share of the first"
    )
    options = options.parse_args()
    settings = {"lmbd": options.lmbd, "epoch": options.epoch, "tolerance": options.tolerance}
    run(__file__, "rep", options, settings, progress=lambda epochs: tqdm(epochs, "fine-tuning", leave=False))


if __name__ == "__main__":
    run_command(main)
