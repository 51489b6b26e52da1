"""The same question through every client."""

import datetime as dt
import decimal
import math

import adbc_driver_flightsql.dbapi as adbc
import pyarrow as pa
import pyarrow.flight as fl


def query(client, sql, **headers):
    """pyarrow only: plain SQL as the descriptor, then the one endpoint."""
    options = fl.FlightCallOptions(headers=[(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()])
    info = client.get_flight_info(fl.FlightDescriptor.for_command(sql.encode()), options)
    assert len(info.endpoints) == 1
    return client.do_get(info.endpoints[0].ticket, options).read_all()


def connect(server, **options):
    return adbc.connect(server.url, **options)


def plain(value):
    """A value in the one form that all clients and formats agree on."""
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        return f"{value:.9g}"
    if isinstance(value, decimal.Decimal):
        return f"{value:.9g}" if value.is_finite() else str(value)
    if isinstance(value, int):
        return f"{decimal.Decimal(value):.9g}"
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.timezone.utc).isoformat() if value.tzinfo else value.isoformat()
    return str(value)


def rows(table):
    """Rows of an Arrow table in a comparable form, in their own order."""
    columns = [[plain(v) for v in column.to_pylist()] for column in table.columns]
    return list(zip(*columns)) if columns else []


def same_schema(one: pa.Schema, other: pa.Schema):
    """Equal names, types and nullability; metadata may differ."""
    return one.remove_metadata().equals(other.remove_metadata())
