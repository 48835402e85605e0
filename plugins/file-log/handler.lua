-- SPDX-License-Identifier: Apache-2.0
-- Each exchange as a line in a file, as JSON or text.
local file = require "sluice.file"
local json = require "sluice.json"
local log = require "sluice.log"
local logging = require "sluice.logging"
local text = require "file-log.text"
local time = require "sluice.time"

local file_log = { version = "1.0.0", priority = 9 }

local SAY_EVERY_S = 10

local states = setmetatable({}, { __mode = "k" }) -- by configuration: custom fields, lines lost

function file_log.configure(confs)
  for _, conf in ipairs(confs or {}) do
    states[conf] = states[conf] or { fields = logging.fields(conf), lost = 0, said_at = 0 }
  end
end

local function lose(conf, state, why)
  state.lost = state.lost + 1
  local now = time.now()
  if now - state.said_at < SAY_EVERY_S then return end
  log.warn("log lines dropped", { path = conf.path, lines = state.lost, error = why })
  state.lost, state.said_at = 0, now
end

function file_log.log(conf, exchange)
  local state = states[conf]
  local record = logging.record(state.fields, exchange)
  local line, err
  if conf.format == "text" then
    line = text.line(record, exchange, state.fields)
  else
    line, err = json.encode(record)
  end
  if line then line, err = file.append(conf.path, line, conf.reopen) end
  if not line then lose(conf, state, err) end
end

return file_log
