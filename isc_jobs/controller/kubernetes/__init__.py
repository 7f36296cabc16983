"""Stages as Jobs and PyTorchJobs of a Kubernetes cluster; the only room that imports ``kubernetes``."""
