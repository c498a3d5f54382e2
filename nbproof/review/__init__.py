"""The review of a pull request: what a branch did to the results, as a comment and as one page.

Data goes one way: base -> collect -> verdict (nbproof.pipeline) -> render and page.
"""
