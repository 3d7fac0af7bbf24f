"""`python -m skinlesion COMMAND` is `skinlesion COMMAND`."""

from skinlesion.cli import main

if __name__ == "__main__":  # a worker of joblib may import this file again
    main()
