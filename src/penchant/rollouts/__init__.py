"""Where on-policy data comes from: prompts sampled, judged and paired."""
