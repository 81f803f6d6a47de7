"""Which parameter goes to which optimizer, and how the learning rate moves."""
