"""The glass box: a page that writes with a model and shows what happens inside."""
