-- SPDX-License-Identifier: Apache-2.0
-- What plugins may use of the gateway: `require "sluice.NAME"` for each name. Everything else under `sluice.` is the
-- runtime's own.

local function names(text)
  local list = {}
  for name in text:gmatch("%S+") do list[#list + 1] = name end
  return list
end

return {
  -- Fields of `require "sluice"` as well. `table` is sluice.tables.
  parts = names [[
    authentication
    avro
    budget
    cache
    certificate
    channel
    circuit
    cloudevents
    counters
    crypto
    datagram
    dead_letters
    dns
    document
    endpoints
    file
    grpc
    http
    ip
    json
    json_edits
    jwks
    jwt
    kafka
    leases
    lock
    log
    metrics
    multipart
    node
    otlp
    protobuf
    query
    queue
    random
    recent
    redis
    regex
    schema_registry
    serde
    sleep
    store
    table
    tcp
    template
    time
    timer
    tracing
    uuid
    vault
    xml
  ]],
  -- Of use to few, such as schemas.
  alone = names [[
    asyncapi
    attempt
    bell
    calls
    code
    cookie
    expression
    function_stats
    functions
    hash
    json_elements
    json_schema
    limits
    logging
    peers
    record_schema
    record_traces
    records
    together
  ]],
}
