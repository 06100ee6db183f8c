"""The models of the paper, one folder each, and the artefact that they hand to the explainers."""
