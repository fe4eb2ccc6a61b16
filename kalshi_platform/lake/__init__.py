"""The lake: Parquet files of the recorded hours and what is derived from them, in a folder or an S3 bucket."""
