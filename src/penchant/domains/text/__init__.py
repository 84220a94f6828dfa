"""Language models as something to align: their rows are read, scored, sampled and saved here. Pictures and robots have rooms of
their own beside it."""
