"""What the workflows in .github/ call. Each of their `run:` lines is one command of this package, so that tests run the same.

Posting needs nothing but Python's standard library: the job that may write comments installs nothing.
"""
