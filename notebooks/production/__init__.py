"""What the second chapter shares: from a trained model to one that answers people's drawings."""
