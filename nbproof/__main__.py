"""The command `nbproof`, also `python -m nbproof`; kernels import this, so it must be cheap."""


def main() -> None:
    """Run the command."""
    from nbproof.cli import main

    main()


if __name__ == "__main__":
    main()
