# SPDX-License-Identifier: Apache-2.0
"""Another implementation of Avro at work for the specs: reads tasks, a JSON object a line, and answers in the same way.

  {"do": "read", "schema": S, "bytes": HEX, "reader": S or absent}   -> {"json": Avro's JSON encoding} or {"error": text}
  {"do": "write", "schema": S, "count": N, "seed": N}   -> {"pairs": [{"bytes": HEX, "json": ...}]}
  {"do": "rewrite", "schema": S, "bytes": HEX}          -> {"bytes": HEX}: what was read, written again
  {"do": "form", "schema": S}                           -> {"canonical": text, "crc64": HEX, "sha256": HEX}
  {"do": "shown", "schema": S, "bytes": HEX}            -> {"shown": text}: a logical value as Python writes it
"""
import io
import json
import random
import sys

import fastavro
from fastavro import _read_py as reading
from fastavro.schema import fingerprint, to_parsing_canonical_form
from fastavro.utils import generate_many

plain_union = reading.read_union


def tagged_union(decoder, schema, named, reader=None, options={}):
    """Its own reader forgets which branch a value is of; Avro's JSON names it."""
    branch = schema[decoder.read_index()]
    value = reading.read_data(decoder, branch, named, None, options)
    if branch == "null" or isinstance(branch, dict) and branch["type"] == "null":
        return None
    if isinstance(branch, str):
        return {branch: value}
    return {branch.get("name", branch["type"]): value}


def as_json(value):
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, list):
        return [as_json(one) for one in value]
    if isinstance(value, dict):
        return {key: as_json(one) for key, one in value.items()}
    return value


def read_tagged(schema, data):
    source = io.BytesIO(data)
    reading.READERS["union"] = tagged_union
    try:
        value = fastavro.schemaless_reader(source, schema, None)
    finally:
        reading.READERS["union"] = plain_union
    if source.read():
        raise ValueError("bytes are left")
    return as_json(value)


def read_resolved(schema, reader, data):
    value = fastavro.schemaless_reader(io.BytesIO(data), schema, reader, return_record_name=True,
                                       return_named_type=True)
    out = io.StringIO()
    fastavro.json_writer(out, reader, [value])
    return json.loads(out.getvalue())


def read(task):
    schema, data = fastavro.parse_schema(task["schema"]), bytes.fromhex(task["bytes"])
    if "reader" in task:
        return {"json": read_resolved(schema, fastavro.parse_schema(task["reader"]), data)}
    return {"json": read_tagged(schema, data)}


def write(task):
    random.seed(task["seed"])
    schema, pairs = fastavro.parse_schema(task["schema"]), []
    for value in generate_many(schema, task["count"]):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, value)
        pairs.append({"bytes": out.getvalue().hex(), "json": read_tagged(schema, out.getvalue())})
    return {"pairs": pairs}


def rewrite(task):
    schema = fastavro.parse_schema(task["schema"])
    value = fastavro.schemaless_reader(io.BytesIO(bytes.fromhex(task["bytes"])), schema, None)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    return {"bytes": out.getvalue().hex()}


def form(task):
    canonical = to_parsing_canonical_form(task["schema"])
    return {"canonical": canonical, "crc64": fingerprint(canonical, "CRC-64-AVRO"),
            "sha256": fingerprint(canonical, "sha256")}


def shown(task):
    schema = fastavro.parse_schema(task["schema"])
    value = fastavro.schemaless_reader(io.BytesIO(bytes.fromhex(task["bytes"])), schema, None)
    return {"shown": value.isoformat() if hasattr(value, "isoformat") else str(value)}


DO = {"read": read, "write": write, "rewrite": rewrite, "form": form, "shown": shown}

for line in open(sys.argv[1], encoding="utf-8"):
    task = json.loads(line)
    try:
        answer = DO[task["do"]](task)
    except Exception as error:  # what the peer cannot do is for the spec to judge
        answer = {"error": type(error).__name__ + ": " + str(error)}
    print(json.dumps(answer))
