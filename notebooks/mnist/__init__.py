"""The science of this example: handwritten digits, three models of them, and which of the models is the best."""
