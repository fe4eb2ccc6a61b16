"""The lake's closed partitions as Apache Iceberg tables, whose files are registered where they lie."""
