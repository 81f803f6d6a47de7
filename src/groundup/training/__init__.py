"""The trainer's room: the story in `trainer.py`, and what it needs, a file each."""
