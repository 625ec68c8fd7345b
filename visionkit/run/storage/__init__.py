"""What a run keeps on disk: checkpoints, results, and the lock of its folder."""
