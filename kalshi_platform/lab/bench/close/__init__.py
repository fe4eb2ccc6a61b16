"""`bench close`: the close of an hour of several gatherers whose rows the live merge has brought already."""
