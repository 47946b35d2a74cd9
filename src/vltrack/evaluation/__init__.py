"""Evaluation: resumable runs over data sets, stored results, scores, the language audit."""
