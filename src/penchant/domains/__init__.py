"""What can be aligned: how its rows are encoded, scored and sampled. It knows models, no objective and no loop."""
