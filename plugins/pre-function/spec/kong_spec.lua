-- SPDX-License-Identifier: Apache-2.0
-- Code that was written for Kong, with its global `kong`.
local spec = require "sluice.spec"

describe("pre-function, with Kong's global", function()
  local function with(config, more)
    local options = { plugins = { { name = "pre-function", config = config } } }
    for key, value in pairs(more or {}) do options[key] = value end
    return spec.gateway(options)
  end

  it("reads a field of the request, and sets one of the service's", function()
    local gateway = with { access = { [[
      local existing_request_id = kong.request.get_header("Request-Id")
      if existing_request_id ~= nil then
        kong.service.request.set_header("New-Request-Id", existing_request_id)
      end
    ]] } }
    assert.is_nil(gateway:get("/").json.headers["new-request-id"])
    assert.equal("7", gateway:get("/", { ["Request-Id"] = "7" }).json.headers["new-request-id"])
  end)

  it("answers, and nothing behind that runs", function()
    local gateway = with { access = { [[
      if not kong.request.get_header("x-custom-auth") then
        kong.response.exit(401, "Invalid Credentials", { ["X-Why"] = "none" })
      end
      kong.service.request.clear_header("x-custom-auth")
    ]] } }
    local refused = gateway:get("/")
    assert.same({ 401, "Invalid Credentials", "none" }, { refused.status, refused.body, refused.headers["x-why"] })
    local passed = gateway:get("/", { ["X-Custom-Auth"] = "1" })
    assert.equal(200, passed.status)
    assert.is_nil(passed.json.headers["x-custom-auth"])
  end)

  it("speaks of the exchange at hand, in functions that were made for another", function()
    local gateway = with { access = { [[
      local get_path, set_header = kong.request.get_path, kong.response.set_header
      return function() set_header("X-Path", get_path()) end
    ]] } }
    for _, path in ipairs { "/one", "/two", "/three" } do
      assert.equal(path, gateway:get(path).headers["x-path"])
    end
  end)

  it("keeps to its exchange while the code waits", function()
    local gateway = with { access = { [[
      local path = kong.request.get_path()
      require("sluice").sleep(0.01)
      kong.response.set_header("X-Same", tostring(path == kong.request.get_path()))
    ]] } }
    assert.equal("true", gateway:get("/a").headers["x-same"])
  end)

  it("has a context for all plugins, and one for the functions of a configuration", function()
    local gateway = spec.gateway { plugins = {
      { name = "pre-function", config = { access = { 'kong.ctx.shared.a, kong.ctx.plugin.b = "all", "own"' },
        header_filter = { 'kong.response.set_header("X-Pre", kong.ctx.shared.a .. " " .. kong.ctx.plugin.b)' } } },
      { name = "post-function", config = { header_filter = {
        'kong.response.set_header("X-Post", kong.ctx.shared.a .. " " .. tostring(kong.ctx.plugin.b))' } } },
    } }
    local headers = gateway:get("/").headers
    assert.equal("all own", headers["x-pre"])
    assert.equal("all nil", headers["x-post"])
    assert.equal("all own", gateway:get("/").headers["x-pre"])
  end)

  it("writes to the log", function()
    local gateway = with { access = {
      'kong.log("plain ", 1)', 'kong.log.err("wrong: ", 2)', 'kong.log.warn("careful")' } }
    gateway:get("/")
    assert.equal(1, #gateway:log("notice.*plain 1"))
    assert.equal(1, #gateway:log("error.*wrong: 2"))
    assert.equal(1, #gateway:log("warn.*careful"))
  end)

  it("shows tables in the log when somebody inspects them", function()
    local gateway = with { access = { 'kong.log.inspect({ a = 1 }, "b", nil)' } }
    gateway:get("/")
    assert.equal(1, #gateway:log('debug.*{\\"a\\":1} b nil'))
  end)

  it("knows and changes what log plugins write", function()
    local gateway = with { log = { [[
      kong.log.set_serialize_value("mine", "yes")
      local entry = kong.log.serialize()
      kong.log.notice("entry ", entry.request.uri, " ", entry.mine)
    ]] } }
    gateway:get("/here")
    assert.equal(1, #gateway:log("entry /here yes"))
  end)

  it("tells mistakes at the line of the code", function()
    local gateway = with { access = { "\n\nkong.request.get_header(nil)" } }
    assert.equal(500, gateway:get("/").status)
    assert.equal(1, #gateway:log("pre%-function.access%[1%]:3.*get_header"))
  end)

  it("says what is not there", function()
    for _, name in ipairs { "kong.db", "ngx.shared", "ngx.var.nginx_version" } do
      local gateway = with { access = { "\nlocal row = " .. name .. " .. ''" } }
      assert.equal(500, gateway:get("/").status)
      assert.equal(1, #gateway:log("pre%-function.access%[1%]:2.*there is no " .. name .. " here"))
    end
  end)

  it("counts on between requests, and logs", function()
    local gateway = with { access = { [[
      -- this runs once
      local count = 0
      return function()
        count = count + 1
        ngx.log(ngx.ERR, "hello world: ", count)
      end
    ]] } }
    for count = 1, 3 do
      gateway:get("/")
      assert.equal(1, #gateway:log("error.*hello world: " .. count))
    end
  end)

  it("gives one value where Kong does, as codecs want it", function()
    local gateway = with { access = { [[
      local cjson = require "cjson.safe"
      local body = cjson.decode(kong.request.get_raw_body())
      local headers = cjson.decode(cjson.encode(kong.request.get_headers()))
      local count = select("#", kong.request.get_query())
      kong.response.exit(200, { uuid = body.uuid, from = headers["x-from"], query = count })
    ]] } }
    assert.same({ uuid = 7, from = "a", query = 1 }, gateway:request { method = "POST", path = "/", body = { uuid = 7 },
      headers = { ["X-From"] = "a" } }.json)
    gateway = with { header_filter = { [[
      kong.response.set_header("X-Counts", select("#", kong.response.get_headers()) .. " "
        .. select("#", kong.service.response.get_headers()))
    ]] } }
    assert.equal("1 1", gateway:get("/").headers["x-counts"])
  end)

  it("has a version, the gateway's", function()
    local gateway = with { access = { 'kong.response.exit(200, kong.version .. " " .. kong.node.get_version())' } }
    local one, other = gateway:get("/").body:match("^(%d+%.%d+%.%d+) (.*)$")
    assert.equal(other, one)
  end)

  it("has what of ngx is no matter of nginx", function()
    local gateway = with { access = { [[
      ngx.ctx.mark = ngx.encode_base64("a?") .. " " .. ngx.decode_base64("YT8=") .. " " .. ngx.escape_uri("a b")
        .. " " .. ngx.unescape_uri("a%20b") .. " " .. ngx.md5("a") .. " " .. #ngx.sha1_bin("a")
        .. " " .. #ngx.hmac_sha1("k", "a") .. " " .. ngx.encode_args({ a = 1 }) .. " " .. ngx.decode_args("b=2").b
        .. " " .. tostring(ngx.null) .. " " .. tostring(ngx.time() <= ngx.now())
      kong.response.exit(200, ngx.ctx.mark)
    ]] } }
    assert.equal("YT8= a? a%20b a b 0cc175b9c0f1b6a831c399e269772661 20 20 a=1 2 userdata: NULL true",
      (gateway:get("/").body:gsub("userdata: %S+", "userdata: NULL")))
  end)

  -- The PDK's functions of Kong that a request needs.
  local NAMES = [[
    request.get_scheme request.get_host request.get_port request.get_forwarded_scheme request.get_forwarded_host
    request.get_forwarded_port request.get_forwarded_path request.get_forwarded_prefix request.get_http_version
    request.get_method request.get_path request.get_raw_path request.get_path_with_query request.get_raw_query
    request.get_query_arg request.get_query request.get_header request.get_headers request.get_raw_body
    request.get_body request.get_start_time request.get_uri_captures
    response.get_status response.get_header response.get_headers response.get_source response.set_status
    response.set_header response.add_header response.clear_header response.set_headers response.get_raw_body
    response.set_raw_body response.exit response.error
    service.set_upstream service.set_target service.set_tls_cert_key service.set_retries service.set_timeouts
    service.set_tls_verify service.set_tls_verify_depth
    service.request.enable_buffering service.request.set_scheme service.request.set_path
    service.request.set_raw_query service.request.set_method service.request.set_query service.request.set_header
    service.request.add_header service.request.clear_header service.request.set_headers
    service.request.set_raw_body service.request.set_body
    service.response.get_status service.response.get_headers service.response.get_header
    service.response.get_raw_body service.response.get_body
    client.get_ip client.get_forwarded_ip client.get_port client.get_forwarded_port client.get_credential
    client.load_consumer client.get_consumer client.get_consumer_group client.get_consumer_groups
    client.authenticate client.get_protocol client.tls.get_full_client_certificate_chain
    router.get_route router.get_service ip.is_trusted node.get_id node.get_hostname node.get_memory_stats
    vault.get vault.is_reference table.new table.clear table.merge log.serialize log.set_serialize_value
    log.debug log.info log.notice log.warn log.err log.crit log.alert log.emerg log.inspect
  ]]

  it("has the functions of Kong's PDK", function()
    local gateway = with { access = { ([[
      local missing = {}
      for name in ("%s"):gmatch("%%S+") do
        local value = kong
        for word in name:gmatch("[^.]+") do value = value and value[word] end
        if type(value) ~= "function" then missing[#missing + 1] = name end
      end
      kong.response.exit(200, table.concat(missing, " "))
    ]]):format((NAMES:gsub("%s+", " "))) } }
    local response = gateway:get("/")
    assert.same({ 200, "" }, { response.status, response.body })
  end)
end)
