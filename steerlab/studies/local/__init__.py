"""What the servers of this machine share: who may ask, where they listen, how a body is read, and
the line before the one thread that runs the model."""
