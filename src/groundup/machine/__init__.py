"""The machine that a command runs on: its devices, cores and memory."""
