"""Training: memory bank, contrastive loss, the one loop, distributed set-up, checkpoints."""
