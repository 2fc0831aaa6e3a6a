"""One outside system a module; nothing here knows the pipeline."""
