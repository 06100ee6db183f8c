"""What `python scripts/fuzz.py` tries: damaged files, command lines at the edge, kills, and two processes at once."""
