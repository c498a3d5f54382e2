"""The steps of .github/workflows: each `run:` line there is one command, so that tests run the same."""
