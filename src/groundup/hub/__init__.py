"""Files from elsewhere: HTTP with time limits, verified downloads, and Hugging Face's hub."""
