"""Who am I among how many, and on what machine. The only room that names torch.distributed."""
