"""Following targets: the policy around a model. Knows no data set, no score table, no plot."""
