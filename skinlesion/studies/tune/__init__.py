"""The search for settings of training: its space, and a study that several workers share."""
