"""A transfer map: finished comparisons of backbones on data sets, side by side on one page. No torch."""
