"""Studies of a data set or a model. Nothing else imports them, so each folder can be deleted."""
