"""What production records about the lake."""

from __future__ import annotations

from kalshi_platform.market.tables.definition import Column, Table

LAKE = (
    Table(
        "lake_verifications",
        "One row per partition of the lake that retention has read back whole: every file had the bytes, SHA-256 and"
        " rows of its manifest. It holds as long as the manifest is the same.",
        (
            Column("lake", "text", "The root of the lake."),
            Column("partition", "text", "The folder of the partition below the root."),
            Column("starts_at", "timestamptz", "The start of the partition."),
            Column(
                "manifest_sha256",
                "text",
                "SHA-256 of the manifest, byte for byte; another one means that the partition was exported again.",
            ),
            Column("rows", "bigint", "Its rows."),
            Column("bytes", "bigint", "The bytes of its data files."),
            Column("verified_at", "timestamptz", "When it was read back."),
        ),
        key=("lake", "partition"),
    ),
)
