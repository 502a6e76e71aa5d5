"""From pictures to the range of every activation."""
