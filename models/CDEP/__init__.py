"""Train a network not to use what it must not use: CDEP, and the penalties that it is compared with."""
