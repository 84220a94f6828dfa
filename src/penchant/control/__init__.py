"""Optimal control of rewards that were learned from preferences: exact in finite worlds, learned in others. It knows no loop of
preferences and no report."""
