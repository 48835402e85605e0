-- SPDX-License-Identifier: Apache-2.0
-- Kafka for plugins: records in, with the broker's word for where they are; records out, one after the other.
--
--   local at, err, code = kafka.produce { topic = "orders", key = id, value = body }  -- at.partition, at.offset
--   local batch = kafka.batch { timeout = 10 }  -- batch:add(record), batch:wait(), batch:result(index)
--   local reader = kafka.reader { topic = "orders", from = "earliest" }
--   local record, err = reader:next(15)
--   local topic, err, code = kafka.admin():topic("orders")  -- topic.partitions
--   local consumer = kafka.group { group = "billing", topics = { "orders" } }
--   local record, err = consumer:next(15)
--   consumer:commit(record)
--
-- A cluster is one of gateway.kafka, "main" unless told. Plugins with Kong's `bootstrap_servers` get one by
-- kafka.cluster_of(conf).

local admin = require "sluice.kafka.admin"
local batch = require "sluice.kafka.batch"
local clusters = require "sluice.kafka.clusters"
local conf = require "sluice.kafka.conf"
local group = require "sluice.kafka.group"
local offsets = require "sluice.kafka.offsets"
local produce = require "sluice.kafka.produce"
local reader = require "sluice.kafka.reader"

return {
  configure = clusters.configure,
  define = clusters.define,
  cluster_of = clusters.cluster_of,
  status = clusters.status,

  -- Fields of Kong's Kafka plugins for a schema; `kafka.schema { producer = true }` with those of a producer.
  schema = conf.schema,
  confluent = conf.confluent,

  produce = produce.produce,
  send = produce.send,
  batch = batch.batch,

  reader = reader.reader,
  offsets = offsets.offsets,

  admin = admin.admin,
  group = group.group,
}
