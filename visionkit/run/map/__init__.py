"""A transfer map: the comparisons of backbones on data sets that a file asks for, as one array of runs."""
