-- SPDX-License-Identifier: Apache-2.0
-- What went wrong, as Confluent's clients know it: { error_code, message }. A code has the status of the response in
-- front, and perhaps two digits behind.
local errors = {}

-- v2
errors.TOPIC_NOT_FOUND = 40401
errors.PARTITION_NOT_FOUND = 40402
errors.CONSUMER_NOT_FOUND = 40403
errors.FORMAT_MISMATCH = 40601
errors.ALREADY_SUBSCRIBED = 40901
errors.CONSUMER_EXISTS = 40902
errors.ILLEGAL_STATE = 40903
errors.KEY_SCHEMA_MISSING = 42201
errors.VALUE_SCHEMA_MISSING = 42202
errors.CONVERSION_FAILED = 42203
errors.INVALID_CONSUMER_CONFIG = 42204
errors.INVALID_SCHEMA = 42205
-- v3
errors.UNKNOWN_TOPIC_OR_PARTITION = 40403
-- both
errors.BAD_REQUEST = 40002
errors.UNAUTHENTICATED = 40101
errors.FORBIDDEN = 40301
errors.KAFKA = 50002
errors.RETRIABLE = 50003
errors.BROKER_NOT_AVAILABLE = 50302

local function set_of(names)
  local set = {}
  for name in names:gmatch("%S+") do set[name] = true end
  return set
end

-- Kafka's names of errors, and librdkafka's own, which begin with "_".
local UNKNOWN = set_of "UNKNOWN_TOPIC_OR_PART _UNKNOWN_TOPIC _UNKNOWN_PARTITION UNKNOWN_TOPIC_ID"
local BAD = set_of [[
  TOPIC_ALREADY_EXISTS TOPIC_EXCEPTION INVALID_PARTITIONS INVALID_REPLICATION_FACTOR INVALID_REPLICA_ASSIGNMENT
  INVALID_CONFIG INVALID_REQUEST POLICY_VIOLATION UNSUPPORTED_VERSION MSG_SIZE_TOO_LARGE RECORD_LIST_TOO_LARGE
  INVALID_MSG_SIZE INVALID_RECORD INVALID_TIMESTAMP SECURITY_DISABLED OFFSET_METADATA_TOO_LARGE INVALID_GROUP_ID
  NON_EMPTY_GROUP GROUP_SUBSCRIBED_TO_TOPIC invalid _INVALID_ARG TOPIC_DELETION_DISABLED
]]
local LOGIN = set_of "SASL_AUTHENTICATION_FAILED _AUTHENTICATION ILLEGAL_SASL_STATE UNSUPPORTED_SASL_MECHANISM"
local FORBIDDEN = set_of [[
  TOPIC_AUTHORIZATION_FAILED GROUP_AUTHORIZATION_FAILED CLUSTER_AUTHORIZATION_FAILED
  TRANSACTIONAL_ID_AUTHORIZATION_FAILED DELEGATION_TOKEN_AUTHORIZATION_FAILED
]]
local RETRIABLE = set_of [[
  timeout expired _TIMED_OUT _TRANSPORT _ALL_BROKERS_DOWN _RESOLVE _TIMED_OUT_QUEUE _MSG_TIMED_OUT _WAIT_COORD _DESTROY
  LEADER_NOT_AVAILABLE NOT_LEADER_FOR_PARTITION REQUEST_TIMED_OUT NETWORK_EXCEPTION COORDINATOR_LOAD_IN_PROGRESS
  COORDINATOR_NOT_AVAILABLE NOT_COORDINATOR NOT_ENOUGH_REPLICAS NOT_ENOUGH_REPLICAS_AFTER_APPEND NOT_CONTROLLER
  KAFKA_STORAGE_ERROR REPLICA_NOT_AVAILABLE GROUP_LOAD_IN_PROGRESS REBALANCE_IN_PROGRESS
  OFFSET_NOT_AVAILABLE PREFERRED_LEADER_NOT_AVAILABLE UNSTABLE_OFFSET_COMMIT THROTTLING_QUOTA_EXCEEDED closed
]]

-- Whether the same may go well later.
---@param code string of sluice.kafka
---@return boolean
function errors.is_retriable(code)
  return RETRIABLE[code] or code == "BROKER_NOT_AVAILABLE" or code == "full"
end

-- v2: the code in the entry of a record.
---@param code string of sluice.kafka
---@return integer
function errors.of_entry(code)
  if LOGIN[code] then return errors.UNAUTHENTICATED end
  if FORBIDDEN[code] then return errors.FORBIDDEN end
  return errors.is_retriable(code) and errors.RETRIABLE or errors.KAFKA
end

---@param code string of sluice.kafka
---@return integer status of the response
---@return integer error_code
function errors.of(code)
  if UNKNOWN[code] then return 404, errors.UNKNOWN_TOPIC_OR_PARTITION end
  if BAD[code] then return 400, errors.BAD_REQUEST end
  if LOGIN[code] then return 401, errors.UNAUTHENTICATED end
  if FORBIDDEN[code] then return 403, errors.FORBIDDEN end
  if code == "GROUP_ID_NOT_FOUND" then return 404, 404 end
  if code == "full" or code == "cluster" then return 503, 503 end
  if code == "BROKER_NOT_AVAILABLE" then return 503, errors.BROKER_NOT_AVAILABLE end
  if RETRIABLE[code] then return 500, errors.RETRIABLE end
  return 500, errors.KAFKA
end

-- In v2 topics have a code of their own.
---@param code string of sluice.kafka
---@return integer status
---@return integer error_code
function errors.of_v2(code)
  if code == "_UNKNOWN_PARTITION" then return 404, errors.PARTITION_NOT_FOUND end
  if UNKNOWN[code] then return 404, errors.TOPIC_NOT_FOUND end
  return errors.of(code)
end

return errors
