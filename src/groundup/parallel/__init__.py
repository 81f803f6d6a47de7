"""The processes that share a run. This is the one room that names torch.distributed."""
