"""The architectures, a file each, and the parts that they share."""
