-- SPDX-License-Identifier: Apache-2.0
-- Compresses responses for clients that can read it (RFC 9110 8.4, 12.5.3). The core does it, in a stream; what is
-- decided here is whether, and by which coding.
local accept = require "compression.accept"
local types = require "compression.types"

local compression = { version = "1.0.0", priority = -900 } -- behind whatever sets fields of a response

local MOST_KNOWN = 100

local compiled = setmetatable({}, { __mode = "k" }) -- by configuration

local function compile(conf)
  return {
    is_meant = types.compile(conf.types),
    levels = { gzip = conf.gzip_level, br = conf.br_level, zstd = conf.zstd_level },
    chosen = {}, known = 0, -- Accept-Encoding -> coding or false: clients say few different things
  }
end

function compression.configure(confs)
  for _, conf in ipairs(confs or {}) do compiled[conf] = compiled[conf] or compile(conf) end
end

local function coding_for(work, conf, accepted)
  local coding = work.chosen[accepted]
  if coding ~= nil then return coding end
  if work.known >= MOST_KNOWN then work.chosen, work.known = {}, 0 end
  coding = accept.choose(accepted, conf.algorithms) or false
  work.chosen[accepted], work.known = coding, work.known + 1
  return coding
end

local STATUSES = { [204] = true, [205] = true, [206] = true, [304] = true } -- without content, or with a part of it

local function has_word(list, word)
  if not list then return false end
  for one in list:gmatch("[^,%s]+") do
    if one:lower() == word then return true end
  end
  return false
end

-- Whether there is something to choose at all.
local function is_fit(work, conf, response)
  local status = response:get_status()
  if status < 200 or STATUSES[status] then return false end
  local encoding = response:get_header("Content-Encoding")
  if encoding and encoding:lower() ~= "identity" then return false end
  local content_type = response:get_header("Content-Type")
  if not content_type or not work.is_meant(content_type) then return false end
  local length = tonumber(response:get_header("Content-Length"))
  if length and length < conf.min_length then return false end
  return not has_word(response:get_header("Cache-Control"), "no-transform")
end

local function vary(response)
  local present = response:get_header("Vary")
  if present and (has_word(present, "accept-encoding") or has_word(present, "*")) then return end
  response:add_header("Vary", "Accept-Encoding")
end

-- Other bytes under the same validator would be joined by whoever asks for parts (RFC 9110 8.8.1).
local function weaken(response)
  local etag = response:get_header("ETag")
  if etag and etag:sub(1, 2) ~= "W/" then response:set_header("ETag", "W/" .. etag) end
  response:clear_header("Accept-Ranges")
  for _, name in ipairs { "Content-MD5", "Content-Digest", "Repr-Digest", "Digest" } do response:clear_header(name) end
end

function compression.header_filter(conf, exchange)
  local work, response = compiled[conf], exchange.response
  if not is_fit(work, conf, response) then return end
  if conf.vary then vary(response) end
  local accepted = exchange.request:get_header("Accept-Encoding")
  local coding = accepted and coding_for(work, conf, accepted)
  if not coding then return end
  weaken(response)
  response:encode(coding, work.levels[coding])
end

return compression
