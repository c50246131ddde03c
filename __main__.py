"""`python -m tally`: the same as `tally`, for whoever would rather say which Python runs it."""

from tally.supervisor import main

if __name__ == "__main__":
    main()
