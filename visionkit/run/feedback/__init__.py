"""What a user sees while runs train: a line a validation, bars on a terminal, `log.txt`, the time left."""
