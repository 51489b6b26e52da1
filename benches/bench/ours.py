"""Our server over the benchmarks' data."""

import pathlib

from support.server import Server


def serve(data, extra: str = "", server: str = "", name: str = "server") -> Server:
    """`synoptic serve` with lake, lite, pg and pg2; `extra` is more TOML, `server` more of its section."""
    config = data.folder / f"{name}.toml"
    lake = data.parquet("lineitem").parent
    config.write_text(f"""
[server]
listen = "127.0.0.1:0"
{server}
[sources.lake]
connector = "files"
location = "{lake}/"
format = "parquet"
[sources.lite]
connector = "sqlite"
path = "{data.sqlite}"
[sources.pg]
connector = "postgres"
url = "{data.url('pg')}"
[sources.pg2]
connector = "postgres"
url = "{data.url('pg2')}"
{extra}
""")
    return Server(config, pathlib.Path(data.folder / f"{name}.log"))
