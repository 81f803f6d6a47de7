"""Models over HTTP: the OpenAI-compatible server."""
