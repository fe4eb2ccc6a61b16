"""How data sets of a day are computed from raw rows: frames in, frames out, without I/O. `lake.derive` feeds them."""
