"""aggregates/candles_1m: one-minute candles."""

from kalshi_platform.lake.datasets.candle_columns import candles_dataset

DATASET = candles_dataset("candles_1m", 1, "minute")
