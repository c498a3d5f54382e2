"""What the notebooks data, linear, mlp, cnn and compare share."""
