"""Where architectures and weights come from: one module a source."""
