"""The LightningModule, its loss, phases, callbacks, checkpoints and cached features."""
