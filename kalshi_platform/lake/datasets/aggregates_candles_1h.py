"""aggregates/candles_1h: candles of whole UTC hours."""

from kalshi_platform.lake.datasets.candle_columns import candles_dataset

DATASET = candles_dataset("candles_1h", 60, "hour")
