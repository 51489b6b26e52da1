"""Flight and Flight SQL on the wire: just enough protobuf to send what any client could send.

Nothing here depends on a Flight library, so that tests see exact gRPC codes and exact bytes, and
can send what no library would.
"""

import struct

import grpc
import pyarrow as pa

SERVICE = "/arrow.flight.protocol.FlightService/"
TYPE_URL = "type.googleapis.com/arrow.flight.protocol.sql."
LIMIT = 256 << 20


# --- Protobuf -----------------------------------------------------------------------------------

def varint(n):
    n &= (1 << 64) - 1
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def message(fields):
    """Encodes {field number: value}: int and bool as varint, str and bytes with their length,
    a list as a repeated field, None as nothing."""
    out = b""
    for number, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            if item is None:
                continue
            if isinstance(item, (bool, int)):
                out += varint(number << 3) + varint(int(item))
            else:
                item = item.encode() if isinstance(item, str) else item
                out += varint(number << 3 | 2) + varint(len(item)) + item
    return out


def fields(data):
    """Decodes a message into {field number: [values]}, in the order of the wire."""
    found, at = {}, 0

    def number():
        nonlocal at
        n = shift = 0
        while True:
            byte = data[at]
            at += 1
            n |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return n

    while at < len(data):
        key = number()
        kind = key & 7
        if kind == 0:
            value = number()
        elif kind == 1:
            value = data[at:at + 8]
            at += 8
        elif kind == 2:
            size = number()
            value = data[at:at + size]
            at += size
        elif kind == 5:
            value = data[at:at + 4]
            at += 4
        else:
            raise ValueError(f"wire type {kind}")
        found.setdefault(key >> 3, []).append(value)
    return found


def one(data, number, default=b""):
    return fields(data).get(number, [default])[-1]


def any_of(name, body=b""):
    """`google.protobuf.Any` of a Flight SQL message."""
    return message({1: TYPE_URL + name, 2: body})


# --- Messages -----------------------------------------------------------------------------------

def cmd(data):
    """FlightDescriptor of type CMD."""
    return message({1: 2, 2: data})


def path(*parts):
    return message({1: 1, 3: [p.encode() for p in parts]})


def ticket(data):
    return message({1: data})


def statement(sql):
    return cmd(any_of("CommandStatementQuery", message({1: sql})))


class Info:
    """FlightInfo."""

    def __init__(self, data):
        self.raw = data
        got = fields(data)
        self.schema_bytes = got.get(1, [b""])[0]
        self.descriptor = got.get(2, [None])[0]
        self.endpoints = [Endpoint(e) for e in got.get(3, [])]
        self.total_records = _signed(got.get(4, [0])[0])
        self.total_bytes = _signed(got.get(5, [0])[0])
        self.ordered = bool(got.get(6, [0])[0])
        self.app_metadata = got.get(7, [b""])[0]

    @property
    def schema(self):
        return pa.ipc.read_schema(pa.py_buffer(self.schema_bytes))


class Endpoint:
    def __init__(self, data):
        got = fields(data)
        self.ticket = one(got[1][0], 1)
        self.locations = [one(l, 1).decode() for l in got.get(2, [])]


def _signed(n):
    return n - (1 << 64) if n >> 63 else n


class Answer:
    """A whole DoGet: its table and the app_metadata of every message."""

    def __init__(self, messages):
        self.metadata = [one(m, 3) for m in messages]
        ipc = b"".join(_encapsulated(one(m, 2), one(m, 1000)) for m in messages if one(m, 2))
        self.bytes = ipc
        reader = pa.ipc.open_stream(ipc)
        self.schema = reader.schema
        self.table = reader.read_all()


def _encapsulated(header, body):
    padded = header + b"\0" * (-len(header) % 8)
    return b"\xff\xff\xff\xff" + struct.pack("<i", len(padded)) + padded + body


def flight_data(batch_or_table, descriptor=None):
    """FlightData messages for DoPut: schema, then batches; the descriptor goes with the first."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch_or_table.schema) as writer:
        writer.write(batch_or_table)
    raw, at, out = sink.getvalue().to_pybytes(), 0, []
    while True:
        (size,) = struct.unpack_from("<i", raw, at + 4)
        if size == 0:
            return out
        header = raw[at + 8:at + 8 + size]
        at += 8 + size
        body_size = pa.ipc.read_message(pa.py_buffer(b"\xff\xff\xff\xff" + struct.pack("<i", size) + header
                                                     + raw[at:])).body.size
        body = raw[at:at + body_size]
        at += body_size
        out.append(message({1: descriptor if not out else None, 2: header, 1000: body or None}))


# --- Calls --------------------------------------------------------------------------------------

class Client:
    """Raw calls: bytes in, bytes out. Errors are `grpc.RpcError`."""

    def __init__(self, port, timeout=120, **headers):
        self.timeout = timeout
        self.headers = [(k.replace("_", "-"), v) for k, v in headers.items()]
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{port}",
            [("grpc.max_receive_message_length", LIMIT), ("grpc.max_send_message_length", LIMIT),
             ("grpc.max_metadata_size", 64 << 10)])

    def close(self):
        self.channel.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _options(self, headers, timeout):
        return {"timeout": timeout or self.timeout, "metadata": [*self.headers, *(headers or [])]}

    def unary(self, method, body, headers=None, timeout=None):
        return self.channel.unary_unary(SERVICE + method)(body, **self._options(headers, timeout))

    def get_flight_info(self, descriptor, headers=None, timeout=None):
        return Info(self.unary("GetFlightInfo", descriptor, headers, timeout))

    def get_schema(self, descriptor, headers=None):
        return pa.ipc.read_schema(pa.py_buffer(one(self.unary("GetSchema", descriptor, headers), 1)))

    def poll(self, descriptor):
        got = fields(self.unary("PollFlightInfo", descriptor))
        return Info(got[1][0]), got.get(2, [None])[0], got.get(3, [None])[0]

    def do_get_raw(self, ticket_bytes, headers=None, timeout=None):
        """The call itself: an iterator of FlightData bytes that can be cancelled."""
        return self.channel.unary_stream(SERVICE + "DoGet")(
            ticket(ticket_bytes), **self._options(headers, timeout))

    def do_get(self, ticket_bytes, headers=None, timeout=None):
        return Answer(list(self.do_get_raw(ticket_bytes, headers, timeout)))

    def do_action(self, kind, body=b"", headers=None, timeout=None):
        call = self.channel.unary_stream(SERVICE + "DoAction")
        sent = message({1: kind, 2: body})
        return [one(r, 1) for r in call(sent, **self._options(headers, timeout))]

    def do_put(self, messages, headers=None):
        call = self.channel.stream_stream(SERVICE + "DoPut")
        return [one(r, 1) for r in call(iter(messages), **self._options(headers, None))]

    def do_exchange(self, messages):
        return list(self.channel.stream_stream(SERVICE + "DoExchange")(
            iter(messages), **self._options(None, None)))

    def stream(self, method, body):
        return list(self.channel.unary_stream(SERVICE + method)(body, **self._options(None, None)))

    def handshake(self, messages, headers=None):
        """Returns (responses, headers of the response)."""
        call = self.channel.stream_stream(SERVICE + "Handshake")(
            iter(messages), **self._options(headers, None))
        responses = list(call)
        return responses, dict(call.initial_metadata())

    def query(self, sql, headers=None, timeout=None):
        """GetFlightInfo, then DoGet of the one endpoint."""
        info = self.get_flight_info(statement(sql), headers, timeout)
        assert len(info.endpoints) == 1
        return self.do_get(info.endpoints[0].ticket, headers, timeout)

    def command(self, name, body=b""):
        """A metadata command: (FlightInfo, Answer)."""
        info = self.get_flight_info(cmd(any_of(name, body)))
        return info, self.do_get(info.endpoints[0].ticket)

    def prepare(self, sql):
        body = any_of("ActionCreatePreparedStatementRequest", message({1: sql}))
        (result,) = self.do_action("CreatePreparedStatement", body)
        return Prepared(self, result)


class Prepared:
    """ActionCreatePreparedStatementResult."""

    def __init__(self, client, result):
        kind, body = one(result, 1).decode(), one(result, 2)
        assert kind == TYPE_URL + "ActionCreatePreparedStatementResult", kind
        got = fields(body)
        self.client, self.handle = client, got[1][0]
        self.dataset_schema_bytes = got.get(2, [b""])[0]
        self.parameter_schema_bytes = got.get(3, [b""])[0]
        self.is_update = got.get(4, [None])[0]

    @property
    def dataset_schema(self):
        return pa.ipc.read_schema(pa.py_buffer(self.dataset_schema_bytes))

    @property
    def parameter_schema(self):
        return pa.ipc.read_schema(pa.py_buffer(self.parameter_schema_bytes))

    @property
    def command(self):
        return any_of("CommandPreparedStatementQuery", message({1: self.handle}))

    def bind(self, batch):
        """Binds a row; takes over an updated handle, as clients do."""
        results = self.client.do_put(flight_data(batch, cmd(self.command)))
        for result in results:
            self.handle = fields(result).get(1, [self.handle])[0]
        return results

    def info(self):
        return self.client.get_flight_info(cmd(self.command))

    def execute(self):
        return self.client.do_get(self.info().endpoints[0].ticket)

    def close(self):
        body = any_of("ActionClosePreparedStatementRequest", message({1: self.handle}))
        return self.client.do_action("ClosePreparedStatement", body)
