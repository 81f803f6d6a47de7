"""What groundup claims of its models, measured on the machine at hand."""
