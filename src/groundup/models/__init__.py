"""The architectures, a file each, and what they share: sampling and the map between readable and
fused.
"""
