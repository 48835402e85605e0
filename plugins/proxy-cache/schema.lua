-- SPDX-License-Identifier: Apache-2.0
local typedefs = require "sluice.typedefs"

local PROTOCOLS = { "grpc", "grpcs", "http", "https" }

local function switch(default, about)
  return { type = "boolean", required = true, default = default, about = about }
end

return {
  name = "proxy-cache",
  fields = {
    { protocols = { type = "set", required = true, default = PROTOCOLS,
      elements = { type = "string", len_min = 1, one_of = PROTOCOLS } } },
    { config = { type = "record", required = true, fields = {
      { response_code = { type = "array", required = true, default = { 200, 301, 404 }, len_min = 1,
        elements = { type = "integer", between = { 100, 900 } }, about = "statuses that may be stored" } },
      { request_method = { type = "array", required = true, default = { "GET", "HEAD" },
        elements = { type = "string", one_of = { "HEAD", "GET", "POST", "PATCH", "PUT" } },
        about = "methods whose responses may be stored" } },
      { content_type = { type = "array", required = true, default = { "text/plain", "application/json" },
        elements = { type = "string" },
        about = "media types that may be stored; `*` stands for any part; parameters count where they are given" } },
      { cache_ttl = { type = "integer", default = 300, gt = -1,
        about = "seconds that a response is fresh, where `cache_control` is off" } },
      { strategy = { type = "string", required = true, one_of = { "memory" },
        about = "where responses are stored: in files that are mapped into memory, shared by all workers" } },
      { cache_control = switch(false, "obey RFC 9111: what requests and responses say of caches") },
      { ignore_uri_case = { type = "boolean", default = false, about = "`/A` and `/a` are the same" } },
      { storage_ttl = { type = "integer",
        about = "seconds that a response is kept, fresh or not; else as long as it is of use and there is room" } },
      { memory = { type = "record", required = true, fields = {
        { dictionary_name = { type = "string", required = true, default = "kong_db_cache",
          about = "caches with different names share nothing" } },
      } } },
      { vary_query_params = { type = "array", elements = { type = "string" },
        about = "the arguments of the query that make a difference; nothing: all" } },
      { vary_headers = { type = "array", elements = { type = "string" },
        about = "fields of the request that make a difference, besides those of `Vary`" } },
      { response_headers = { type = "record", required = true, about = "fields that tell of the cache", fields = {
        { age = { type = "boolean", default = true, about = "`Age` of stored responses" } },
        { ["X-Cache-Status"] = { type = "boolean", default = true, about = "`Hit`, `Miss`, `Refresh` or `Bypass`" } },
        { ["X-Cache-Key"] = { type = "boolean", default = true, about = "what a response can be purged by" } },
        { ["Cache-Status"] = { type = "boolean", default = false, about = "the same and more, as of RFC 9211" } },
      } } },
      { heuristic_fraction = { type = "number", required = true, default = 0.1, between = { 0, 1 },
        about = "with `cache_control`: what tells no lifetime is fresh for this part of the time since it changed" } },
      { heuristic_max = { type = "number", required = true, default = 86400, between = { 0, 31536000 },
        about = "and for so many seconds at most" } },
      { stale_while_revalidate = { type = "number", between = { 0, 31536000 },
        about = "seconds that a stale response is served while a fresh one is fetched, unless it says itself" } },
      { stale_if_error = { type = "number", between = { 0, 31536000 },
        about = "seconds that a stale response is served when the service fails, unless it says itself" } },
      { collapse = switch(true, "of those who want the same at once, one request goes to the service") },
      { collapse_timeout = { type = "number", required = true, default = 10, between = { 0.01, 300 },
        about = "seconds that the others wait for it before they go themselves" } },
      { max_object_bytes = { type = "integer", required = true, default = 67108864, gt = 0,
        about = "of a response's content; larger ones are not stored" } },
      { store_set_cookie = switch(false, "store responses with `Set-Cookie`, and hand the cookie to everybody") },
      { tag_headers = { type = "array", required = true, default = { "Surrogate-Key", "Cache-Tag" },
        elements = typedefs.header_name,
        about = "fields of responses with tags to purge by; clients are not told them" } },
      { purge_ips = { type = "set", elements = typedefs.ip_or_cidr,
        about = "addresses that may send `PURGE` requests; nothing: nobody" } },
    } } },
  },
}
