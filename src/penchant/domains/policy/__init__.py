"""Policies of agents as something to align: distributions over actions, trajectories scored step by step, rollouts. What a policy
is trained for is not known here."""
