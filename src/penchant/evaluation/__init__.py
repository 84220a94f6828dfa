"""Did it work: metrics with intervals, and the verdict in plain words."""
