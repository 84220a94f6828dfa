"""What is wrong with preference data that no single row shows: wrong labels, people who differ, shortcuts, leaks. It learns
small predictors of its own and trains no model."""

from penchant.evaluation.diagnosis.diagnose import Diagnosis, diagnose

__all__ = ["Diagnosis", "diagnose"]
