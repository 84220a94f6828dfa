"""Answers judged apart from any run: by a judge, a comparer or a person, into rows that `penchant align` reads.
It trains nothing."""
