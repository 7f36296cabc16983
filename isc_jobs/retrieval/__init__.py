"""Retrieval: exact search, negative embedding subtraction, submission files, metrics. No torch."""
