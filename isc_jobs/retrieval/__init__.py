"""Retrieval: exact search, PCA, negative embedding subtraction, score normalisation, submission files, metrics.

No torch.
"""
