"""Training: the loop in `trainer.py`, and a file for each thing that the loop needs."""
