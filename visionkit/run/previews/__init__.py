"""Images of a run: training batches as the model gets them, and its predictions."""
