"""Completes the definition of every asset: links to its documents and its source, and when it must be made again.

What an asset is stands where it is made (`assets/`); what the pages of all have in common is added here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.market.tables import CATALOG_TABLES, CLOSE_TABLES
from kalshi_platform.orchestration.freshness_policies import ON_DEMAND, find_policy

REPOSITORY = "https://github.com/kalshi-platform/kalshi-platform"
_PACKAGE = Path(__file__).parents[1]
# Elsewhere there is nothing that an editor could open.
_IS_CHECKOUT = (_PACKAGE.parent / "pyproject.toml").is_file()

_FRAMES = "lake/raw/frames"
_DOCS: Mapping[str, tuple[str, ...]] = {
    "kalshi/websocket": ("architecture.md#4-the-walk-of-one-delta", "merge-model.md#1-what-is-assumed"),
    "kalshi/rest": ("architecture.md#5-the-walk-of-one-market", "operations.md#34-the-exchange-refuses"),
    "gatherer/exchange_status": ("operations.md#2-states",),
    "gatherer/rest_snapshots": ("data-dictionary.md#timeseries-orderbook_snapshots",),
    "production/orderbook_deltas": ("queries.md#the-book-of-a-market-at-a-time",),
    "production/trades": ("queries.md#the-last-trades",),
    "production/tickers": ("queries.md#the-best-bid-and-offer",),
    "production/book_checkpoints": ("merge-model.md#7-checkpoints-books-that-folds-start-from",),
    "production/coverage": ("queries.md#where-the-record-of-a-market-has-holes",),
    "production/markets": ("queries.md#the-catalog-as-it-was-known",),
    "production/trades_backfill": ("operations.md#backfilling-trades", "data-dictionary.md#production-trade_checks"),
    _FRAMES: ("lake.md#frames-as-received",),
    "lake/tables": ("lake.md#as-tables",),
    "lake/lifecycle_rules": ("lake.md#stores",),
    "lake/retention": ("operations.md#dropping-old-rows", "data-dictionary.md#production-lake_verifications"),
    "lake/dagster_retention": ("operations.md#dropping-old-rows",),
}
"""Documents by asset, beside its section of the data dictionary."""
_SOURCES: Mapping[str, tuple[str, ...]] = {
    "kalshi/websocket": ("exchange/websocket.py", "exchange/wire/ws.py"),
    "kalshi/rest": ("exchange/endpoints.py", "exchange/wire/rest.py"),
    "gatherer/exchange_status": ("exchange/endpoints.py",),
    "gatherer/rest_snapshots": ("gatherer/on_demand.py", "market/tables/streams.py"),
    "production/trades_backfill": ("deduplicator/trades/backfill.py", "market/tables/closes.py"),
    _FRAMES: ("archive/archive_frames.py", "lake/frame_archive.py"),
    "lake/tables": ("lake/iceberg/register.py",),
    "lake/lifecycle_rules": ("lake/lifecycle.py",),
    "lake/retention": ("lake/retention/apply.py", "market/tables/lake.py"),
    "lake/dagster_retention": ("orchestration/old_runs.py",),
}
"""Files of this package that say what the asset is, where its key does not tell: the function, then the definition."""
NO_TABLE: Mapping[str, str] = {
    "kalshi/websocket": (
        "Messages: `orderbook_snapshot`, `orderbook_delta`, `trade`, `ticker`, `market_lifecycle_v2`, and more; each"
        " table of `gatherer/` holds the fields of its messages."
    ),
    "kalshi/rest": "JSON objects; `gatherer/series`, `events`, `markets` and `rest_snapshots` hold their fields.",
    "gatherer/exchange_status": "One answer: whether the exchange works, whether it trades, when it expects to resume.",
    _FRAMES: (
        "Segments of the gatherer's journal: the frames as they were received, with their times, streams and numbers."
    ),
    "lake/tables": "One table per data set, with the columns of the asset of that name.",
    "lake/lifecycle_rules": "Rules of the bucket, in S3's own words.",
    "lake/dagster_retention": "Runs of Dagster, with their events and logs.",
}
"""What assets consist of that are no table of ours, by key."""


def complete_pages(
    assets: Iterable[dg.AssetsDefinition | dg.AssetSpec],
) -> Iterator[dg.AssetsDefinition | dg.AssetSpec]:
    """Yield the assets with `docs`, `dagster/code_references`, and a freshness policy or the reason for none."""
    for asset in assets:
        if isinstance(asset, dg.AssetSpec):
            yield _complete(asset)
        else:
            yield asset.map_asset_specs(partial(_complete, body=_find_body(asset)))


def page_of(key: str) -> str:
    """Return the key under which this module says what an asset is; the frames of all gatherers are one thing."""
    return _FRAMES if key.startswith(f"{_FRAMES}/") else key


def list_documents(key: str) -> tuple[str, ...]:
    """List the documents of an asset as `<file in docs>#<heading>`."""
    key = page_of(key)
    stage, _, name = key.partition("/")
    special = _DOCS.get(key, ())
    if stage == "lake" and name in DATASETS:
        return (*special, f"data-dictionary.md#lake-{name.replace('/', '')}", f"lake.md#{_lake_heading(name)}")
    if stage in ("gatherer", "production") and f"{stage}/{name}" not in _SOURCES:
        database = "catalog" if name in CATALOG_TABLES else "timeseries" if stage == "gatherer" else stage
        return (*special, f"data-dictionary.md#{database}-{name}")
    return special


def list_sources(key: str) -> tuple[str, ...]:
    """List the files of this package that say what an asset is."""
    key = page_of(key)
    stage, _, name = key.partition("/")
    if key in _SOURCES:
        return _SOURCES[key]
    if stage == "lake":
        return (f"lake/datasets/{name.replace('/', '_')}.py",)
    if name in CATALOG_TABLES:
        function = "catalog/sync.py" if stage == "gatherer" else "deduplicator/catalog/merge_catalog.py"
        return (function, "market/tables/catalog.py")
    if stage == "gatherer":
        return ("orchestration/jobs/gather.py", "market/tables/streams.py")
    return ("deduplicator/close/close_hour.py", f"market/tables/{'closes' if name in CLOSE_TABLES else 'streams'}.py")


def _lake_heading(dataset: str) -> str:
    layer, _, name = dataset.partition("/")
    if layer == "aggregates":
        return "candles-and-statistics"
    return "books" if name in ("book_deltas", "quotes", "book_1s", "book_1m") else "reading-it"


def _complete(spec: dg.AssetSpec, body: Callable[..., Any] | None = None) -> dg.AssetSpec:
    key = page_of(spec.key.to_user_string())
    metadata = {
        **spec.metadata,
        "docs": dg.MetadataValue.md(" · ".join(_link(document) for document in list_documents(key))),
        "dagster/code_references": _refer(body, list_sources(key)),
        **({"columns": dg.MetadataValue.md(NO_TABLE[key])} if key in NO_TABLE else {}),
    }
    if spec.key in ON_DEMAND:
        return spec.replace_attributes(metadata={**metadata, "freshness": ON_DEMAND[spec.key]})
    return spec.replace_attributes(metadata=metadata, freshness_policy=find_policy(spec.key))


def _link(document: str) -> str:
    return f"[{document.partition('#')[0]}]({REPOSITORY}/blob/main/docs/{document})"


def _refer(body: Callable[..., Any] | None, files: Iterable[str]) -> dg.CodeReferencesMetadataValue:
    """Refer to the asset's function and to files of this package: in the repository, and to be edited in a checkout."""
    places = [(_PACKAGE / file, 1) for file in files]
    if body is not None:
        places.insert(0, (Path(inspect.getsourcefile(body) or ""), inspect.getsourcelines(body)[1]))
    references: list[dg.UrlCodeReference | dg.LocalFileCodeReference] = []
    for path, line in places:
        label = path.relative_to(_PACKAGE).as_posix()
        references.append(
            dg.UrlCodeReference(url=f"{REPOSITORY}/blob/main/{_PACKAGE.name}/{label}#L{line}", label=label)
        )
        if _IS_CHECKOUT:
            references.append(dg.LocalFileCodeReference(file_path=str(path), line_number=line, label=label))
    return dg.CodeReferencesMetadataValue(code_references=references)


def _find_body(asset: dg.AssetsDefinition) -> Callable[..., Any]:
    compute: Any = asset.op.compute_fn
    body: Callable[..., Any] = inspect.unwrap(compute.decorated_fn)
    return body
