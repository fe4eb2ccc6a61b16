"""aggregates/candles_1d: candles of UTC days; where Kalshi cuts its days is not documented."""

from kalshi_platform.lake.datasets.candle_columns import candles_dataset

DATASET = candles_dataset("candles_1d", 24 * 60, "UTC day")
