"""The one loop: counting, accumulation, checkpoints, precision, distribution. No method is named here."""
