-- SPDX-License-Identifier: Apache-2.0
-- Records in transactions, which the gateway does not make: of librdkafka itself.
local ffi = require "ffi"

ffi.cdef [[
typedef struct rd_kafka_s rd_kafka_t;
typedef struct rd_kafka_conf_s rd_kafka_conf_t;
typedef struct rd_kafka_topic_s rd_kafka_topic_t;
typedef struct rd_kafka_error_s rd_kafka_error_t;
rd_kafka_conf_t *rd_kafka_conf_new(void);
int rd_kafka_conf_set(rd_kafka_conf_t *conf, const char *name, const char *value, char *text, size_t size);
rd_kafka_t *rd_kafka_new(int type, rd_kafka_conf_t *conf, char *text, size_t size);
rd_kafka_topic_t *rd_kafka_topic_new(rd_kafka_t *rk, const char *topic, void *conf);
void rd_kafka_topic_destroy(rd_kafka_topic_t *topic);
int rd_kafka_produce(rd_kafka_topic_t *topic, int32_t partition, int flags, const void *value, size_t len,
                     const void *key, size_t key_len, void *opaque);
int rd_kafka_flush(rd_kafka_t *rk, int timeout_ms);
void rd_kafka_destroy(rd_kafka_t *rk);
rd_kafka_error_t *rd_kafka_init_transactions(rd_kafka_t *rk, int timeout_ms);
rd_kafka_error_t *rd_kafka_begin_transaction(rd_kafka_t *rk);
rd_kafka_error_t *rd_kafka_commit_transaction(rd_kafka_t *rk, int timeout_ms);
rd_kafka_error_t *rd_kafka_abort_transaction(rd_kafka_t *rk, int timeout_ms);
const char *rd_kafka_error_string(const rd_kafka_error_t *error);
]]

local C = ffi.load("rdkafka.so.1")
local WITHIN_MS, COPY, PRODUCER = 15000, 2, 0

local transactions = {}

local function good(err)
  if err ~= nil then error(ffi.string(C.rd_kafka_error_string(err)), 2) end
end

local function producer_of(servers)
  local text = ffi.new("char[512]")
  local conf = C.rd_kafka_conf_new()
  local id = "spec-" .. tostring({}):match("0x(%x+)")
  for name, value in pairs { ["bootstrap.servers"] = servers, ["transactional.id"] = id } do
    assert(C.rd_kafka_conf_set(conf, name, value, text, 512) == 0, ffi.string(text))
  end
  local producer = C.rd_kafka_new(PRODUCER, conf, text, 512)
  assert(producer ~= nil, ffi.string(text))
  return producer
end

-- Writes values into a partition in one transaction, which is then committed or aborted: one offset more, without a
-- record, is behind them.
---@param how "commit"|"abort"
function transactions.write(servers, topic, partition, values, how)
  local producer = producer_of(servers)
  good(C.rd_kafka_init_transactions(producer, WITHIN_MS))
  good(C.rd_kafka_begin_transaction(producer))
  local handle = C.rd_kafka_topic_new(producer, topic, nil)
  for _, value in ipairs(values) do
    assert(C.rd_kafka_produce(handle, partition, COPY, value, #value, nil, 0, nil) == 0)
  end
  C.rd_kafka_flush(producer, WITHIN_MS)
  if how == "commit" then good(C.rd_kafka_commit_transaction(producer, WITHIN_MS))
  else good(C.rd_kafka_abort_transaction(producer, WITHIN_MS)) end
  C.rd_kafka_topic_destroy(handle)
  C.rd_kafka_destroy(producer)
end

return transactions
