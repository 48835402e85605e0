-- SPDX-License-Identifier: Apache-2.0
local lfs = require "lfs"
local spec = require "sluice.spec"
local crypto = require "sluice.crypto"
local grpc = require "sluice.grpc"
local json = require "sluice.json"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local protobuf = require "sluice.protobuf"

local FILE = lfs.currentdir() .. "/plugins/grpc-gateway/spec/library.proto"
local schema = assert(protobuf.load(assert(protobuf.compile("library.proto", {
  ["library.proto"] = process.read_file(FILE) }))))

-- The one message of a gRPC body, as a table.
local function message_of(body, name)
  local reader = grpc.reader(1000000)
  reader:put(body)
  local message = assert(reader:next())
  assert.is_true(reader:is_empty())
  return json.decode((assert(schema:to_json(name or "library.Book", message))))
end

local function bytes_of(book, name)
  return (assert(schema:to_binary(name or "library.Book", json.encode(book))))
end

local function frame_of(book, name)
  return grpc.frame(bytes_of(book, name))
end

local function answer_of(book, name)
  return { headers = { ["Content-Type"] = "application/grpc" }, chunks = { frame_of(book, name) },
    trailers = { ["grpc-status"] = "0" } }
end

-- A service that sends each message back.
local function echo(request)
  local name = request.path == "/library.Library/Remove" and "google.protobuf.Empty" or nil
  return { headers = { ["Content-Type"] = "application/grpc" }, chunks = { name and grpc.frame("") or request.body },
    trailers = { ["grpc-status"] = "0", ["grpc-message"] = "" } }
end

describe("grpc-gateway", function()
  local gateway

  local function start(answer, config)
    config = config or {}
    config.proto = config.proto or not config.descriptor_set and FILE or nil
    gateway = spec.gateway { plugins = { { name = "grpc-gateway", config = config } },
      upstreams = { ["service.example"] = answer or echo } }
    return gateway
  end

  local function called()
    local requests = gateway:requests("service.example")
    return requests[#requests]
  end

  local function sent()
    return message_of(called().body)
  end

  describe("makes of a request the call that its rule names:", function()
    before_each(function() start() end)

    it("method, path and fields are gRPC's", function()
      local response = gateway:get("/v1/books/emma?x=1", { ["Accept-Encoding"] = "gzip" })
      assert.equal(200, response.status)
      local request = called()
      assert.same({ "POST", "/library.Library/Get", "application/grpc", "identity" }, { request.method, request.target,
        request.headers["content-type"], request.headers["grpc-accept-encoding"] })
      assert.is_nil(request.headers["accept-encoding"])
    end)

    for path, name in pairs {
      ["/v1/books/emma"] = "emma", ["/v1/shelves/1/books/2"] = "shelves/1/books/2",
      ["/v1/books/a%20b%2Fc%25"] = "a b/c%", ["/v1/shelves/a%20b/books/x%2Fy"] = "shelves/a b/books/x%2Fy",
      ["/v1/anything/a/b/c"] = "a/b/c", ["/v1/anything/"] = "", ["/v1/anything"] = "", ["/v1/books/a:b"] = "a:b",
    } do
      it("the path " .. path .. " has the name " .. name, function()
        assert.equal(200, gateway:get(path).status)
        assert.equal(name, sent().name or "")
      end)
    end

    for path, status in pairs { ["/v1/none"] = 404, ["/v1/books/"] = 404, ["/v1/shelves/1/books"] = 404,
      ["/library.Library/Get"] = 404, ["/v1/books:add"] = 405, ["/v1/books:none"] = 404 } do
      it("there is no rule for GET " .. path, function()
        local response = gateway:get(path)
        assert.equal(status, response.status)
        assert.same({ code = status == 404 and 5 or 12, details = {},
          message = status == 404 and "Not Found" or "Method Not Allowed" }, response.json)
        assert.equal(0, #gateway:requests("service.example"))
      end)
    end

    it("what a path is there for is told", function()
      assert.equal("DELETE, GET, LOCK, PUT", gateway:post("/v1/books/emma", "{}").headers.allow)
    end)

    it("the query fills the fields that are left", function()
      gateway:get("/v1/books/emma?title=Emma&pages=5&kind=ATLAS&tags=a&tags=b&lent=true&weightKg=0.5&author.full_name=J"
        .. "&author.teacher.born=1700&printed=1815-12-23T00:00:00Z&stock%5Bhere%5D=2&name=other&none=1&author.none=1")
      assert.same({ name = "emma", title = "Emma", pages = "5", kind = "ATLAS", tags = { "a", "b" }, lent = true,
        weightKg = 0.5, author = { fullName = "J", teacher = { born = 1700 } }, printed = "1815-12-23T00:00:00Z",
        stock = { here = 2 } }, sent())
    end)

    it("the body is the message, and the path goes over it", function()
      gateway:put("/v1/books/emma?title=no", '{"name":"x","title":"Emma","pages":"9007199254740993","none":[1]}')
      assert.same({ name = "emma", title = "Emma", pages = "9007199254740993" }, sent())
      gateway:post("/v1/books", "")
      assert.same({}, sent())
      gateway:post("/v1/authors/Jane%20A/books:add", '{"author":{"born":1775}}')
      assert.same({ author = { fullName = "Jane A", born = 1775 } }, sent())
    end)

    it("the body is one of its fields", function()
      gateway:patch("/v1/books/emma/author?title=T&author.born=3", '{"full_name":"Jane"}',
        { ["Content-Type"] = "application/merge-patch+json; charset=utf-8" })
      assert.same({ name = "emma", title = "T", author = { fullName = "Jane" } }, sent())
      gateway:post("/v1/books/emma/tags", '["a","b"]')
      assert.same({ name = "emma", tags = { "a", "b" } }, sent())
    end)

    it("verbs of the path and methods of other names are told apart", function()
      gateway:post("/v1/books:add", '{"title":"x"}')
      assert.equal("/library.Library/Add", called().path)
      gateway:request { method = "LOCK", path = "/v1/books/emma" }
      assert.equal("/library.Library/Add", called().path)
      assert.equal(200, gateway:delete("/v1/books/emma").status)
      assert.equal("/library.Library/Remove", called().path)
    end)

    it("several messages are lines of the body", function()
      gateway:post("/v1/books:fill", '{"title":"a"}\n{"title":"b"}\r\n')
      local reader = grpc.reader(1000)
      reader:put(called().body)
      assert.equal("\18\1a", reader:next())
      assert.equal("\18\1b", reader:next())
      assert.is_true(reader:is_empty())
    end)

    it("a body that is no JSON goes where there is a field for it", function()
      gateway:post("/v1/pages/7", "<p>\255", { ["Content-Type"] = "text/html" })
      assert.same({ name = "7", content = { contentType = "text/html", data = crypto.base64_encode("<p>\255") } },
        message_of(called().body, "library.Page"))
    end)

    it("gRPC's own requests pass as they are", function()
      gateway:post("/library.Library/Get", "\0\0\0\0\0", { ["Content-Type"] = "application/grpc+proto" })
      assert.same({ "/library.Library/Get", "\0\0\0\0\0", "application/grpc+proto" },
        { called().path, called().body, called().headers["content-type"] })
    end)
  end)

  describe("refuses", function()
    before_each(function() start() end)

    for body, expected in pairs {
      ["{"] = "expected a name at byte 2", ['{"pages":"x"}'] = "invalid value", ["[]"] = "Root element must be",
      ['{"author":' .. ('{"teacher":'):rep(5000) .. "{}" .. ("}"):rep(5001)] = "nested too deeply",
      ['{"title":"\255"}'] = "invalid UTF%-8",
    } do
      it("the body " .. ("%q"):format(body:sub(1, 30)), function()
        local response = gateway:post("/v1/books", body)
        assert.equal(400, response.status)
        assert.equal("application/json", response.headers["content-type"])
        assert.equal(3, response.json.code)
        assert.matches(expected, response.json.message)
        assert.equal(0, #gateway:requests("service.example"))
      end)
    end

    it("values beside a field's value", function()
      local response = gateway:post("/v1/books/emma/tags", '["a"],"title":"x"')
      assert.equal(400, response.status)
      assert.matches("something follows the value", response.json.message)
    end)

    it("queries that do not fit their fields", function()
      for query, expected in pairs { ["pages=x"] = "invalid value", ["title=a&title=b"] = "title: more than one value",
        ["kind=NONE&pages="] = "invalid value", ["title=%FF"] = "invalid UTF%-8", ["author=x"] = "Author" } do
        local response = gateway:get("/v1/books/emma?" .. query)
        assert.equal(400, response.status)
        assert.matches(expected, response.json.message)
      end
    end)

    it("content that is not JSON, or is encoded", function()
      assert.equal(415, gateway:post("/v1/books", "<a/>", { ["Content-Type"] = "application/xml" }).status)
      assert.equal(415, gateway:post("/v1/books", "{}", { ["Content-Encoding"] = "gzip" }).status)
    end)
  end)

  it("refuses what is larger than a message may be", function()
    start(nil, { max_message_bytes = 20 })
    assert.equal(413, gateway:post("/v1/books", ('{"title":"%s"}'):format(("x"):rep(20))).status)
  end)

  it("refuses unknown fields when told to", function()
    start(nil, { reject_unknown_fields = true })
    assert.matches("none: Cannot find field", gateway:post("/v1/books", '{"none":1}').json.message)
    assert.equal('there is no field "none"', gateway:get("/v1/books/emma?none=1").json.message)
  end)

  it("answers every request with an error where no schema is configured", function()
    gateway = spec.gateway { plugins = { { name = "grpc-gateway", config = {} } } }
    local response = gateway:get("/v1/books/emma")
    assert.equal(400, response.status)
    assert.equal("transcoding requests require a .proto file defining the service", response.json.message)
  end)

  it("answers what browsers ask before a request", function()
    local response = start():request { method = "OPTIONS", path = "/v1/books/emma" }
    assert.equal(200, response.status)
    assert.equal("*", response.headers["access-control-allow-origin"])
    assert.equal("GET,POST,PUT,PATCH,DELETE", response.headers["access-control-allow-methods"])
    assert.equal("*", gateway:get("/v1/books/emma").headers["access-control-allow-origin"])
  end)

  describe("makes of a message", function()
    it("JSON with the names of the file and all its fields", function()
      start(answer_of { name = "emma", pages = "7", weightKg = 1.5 })
      local response = gateway:get("/v1/books/emma")
      assert.equal(200, response.status)
      assert.equal("application/json", response.headers["content-type"])
      assert.equal(tostring(#response.body), response.headers["content-length"])
      assert.same({ name = "emma", title = "", pages = "7", kind = "NOVEL", tags = {}, stock = {}, lent = false,
        weight_kg = 1.5 }, response.json)
      for name in pairs(response.headers) do assert.is_nil(name:match("^grpc%-")) end
      assert.same({}, response.trailers or {})
    end)

    it("JSON with other names, without defaults, with numbers, as told", function()
      start(answer_of { weightKg = 1.5, kind = "ATLAS" }, { field_names = "json", emit_defaults = false,
        enum_numbers = true })
      assert.same({ weightKg = 1.5, kind = 2 }, gateway:get("/v1/books/emma").json)
    end)

    it("the one field that the rule names", function()
      start(answer_of { title = "Emma", tags = { "a" } })
      assert.equal('"Emma"', gateway:get("/v1/titles/x").body)
      assert.equal('["a"]', gateway:get("/v1/tags").body)
      gateway:upstream("service.example", answer_of {})
      assert.equal("[]", gateway:get("/v1/tags").body)
    end)

    it("whatever it says it is", function()
      start(answer_of({ contentType = "text/html", data = crypto.base64_encode("<p>\255") }, "google.api.HttpBody"))
      local response = gateway:post("/v1/pages/1", "x", { ["Content-Type"] = "text/plain" })
      assert.equal("text/html", response.headers["content-type"])
      assert.equal("<p>\255", response.body)
    end)
  end)

  describe("tells an error of the service", function()
    for code, status in pairs { [1] = 499, [2] = 500, [3] = 400, [4] = 504, [5] = 404, [6] = 409, [7] = 403, [8] = 429,
      [9] = 400, [10] = 409, [11] = 400, [12] = 501, [13] = 500, [14] = 503, [15] = 500, [16] = 401, [99] = 500 } do
      it(("%d as %d"):format(code, status), function()
        start { trailers = { ["grpc-status"] = tostring(code), ["grpc-message"] = "no%20%C3%A4pple" }, chunks = {} }
        local response = gateway:get("/v1/books/emma")
        assert.equal(status, response.status)
        assert.same({ code = code, message = "no äpple", details = {} }, response.json)
      end)
    end

    it("that comes in the fields alone", function()
      start { headers = { ["grpc-status"] = "5", ["grpc-message"] = "gone" }, body = "" }
      for _, path in ipairs { "/v1/books/emma", "/v1/books" } do
        local response = gateway:get(path)
        assert.equal(404, response.status)
        assert.equal("application/json", response.headers["content-type"])
        assert.same({ code = 5, message = "gone", details = {} }, response.json)
        assert.is_nil(response.headers["grpc-status"])
      end
    end)

    it("with its details, as far as their types are known", function()
      local function field(number, content) return string.char(number * 8 + 2, #content) .. content end
      local status = field(3, field(1, "type.googleapis.com/google.rpc.ErrorInfo") .. field(2, field(1, "STOLEN")))
        .. field(3, field(1, "type.googleapis.com/library.Author") .. field(2, field(1, "J")))
        .. field(3, field(1, "type.googleapis.com/no.Such") .. field(2, "\1\2"))
      start { trailers = { ["grpc-status"] = "5",
        ["grpc-status-details-bin"] = (crypto.base64_encode(status):gsub("=", "")) }, chunks = {} }
      assert.same({
        { ["@type"] = "type.googleapis.com/google.rpc.ErrorInfo", reason = "STOLEN" },
        { ["@type"] = "type.googleapis.com/library.Author", fullName = "J" },
        { ["@type"] = "type.googleapis.com/no.Such", value = "AQI=" },
      }, gateway:get("/v1/books/emma").json.details)
    end)

    it("that is HTTP's", function()
      start { status = 503, body = "busy" }
      for _, path in ipairs { "/v1/books/emma", "/v1/books" } do
        local response = gateway:get(path)
        assert.same({ 503, 14, "the service answered with HTTP status 503" },
          { response.status, response.json.code, response.json.message })
      end
    end)

    it("that it does not know of", function()
      for _, case in ipairs {
        { { body = "" }, "the service told no status" },
        { { chunks = {}, trailers = { ["grpc-status"] = "0" } }, "the service answered without a message" },
        { { chunks = { ("\0"):rep(10) }, trailers = { ["grpc-status"] = "0" } }, "more than one message" },
        { { chunks = { "\0\0\0\0\5ab" }, trailers = { ["grpc-status"] = "0" } }, "without a message" },
        { { chunks = { grpc.frame("x", 1) }, trailers = { ["grpc-status"] = "0" } }, "compressed" },
        { { chunks = { "\0\255\255\255\255" }, trailers = { ["grpc-status"] = "0" } }, "4294967295 bytes, more than" },
        { { chunks = { grpc.frame("\10\5") }, trailers = { ["grpc-status"] = "0" } }, "malformed" },
      } do
        start(case[1])
        local response = gateway:get("/v1/books/emma")
        assert.equal(500, response.status)
        assert.matches(case[2], response.json.message, 1, true)
      end
    end)

    it("leaves the gateway's own as they are", function()
      start { refuse = true }
      local response = gateway:get("/v1/books/emma")
      assert.equal(502, response.status)
      assert.is_string(response.json.request_id)
    end)
  end)

  describe("sends a stream", function()
    local two = frame_of { name = "a" } .. grpc.frame("\10\1b\42\2x\n") -- name and tags of a book

    local function stream(chunks, status, config)
      config = config or {}
      config.emit_defaults = false
      start({ headers = { ["Content-Type"] = "application/grpc" }, chunks = chunks,
        trailers = { ["grpc-status"] = status or "0", ["grpc-message"] = "over" } }, config)
    end

    it("as JSON, one message a line", function()
      stream { two }
      local response = gateway:get("/v1/books")
      assert.equal("application/x-ndjson", response.headers["content-type"])
      assert.equal('{"name":"a"}\n{"name":"b","tags":["x\\n"]}\n', response.body)
      assert.same({}, response.trailers or {})
    end)

    it("as events to who asks for them, or as configured", function()
      stream { two }
      local response = gateway:get("/v1/books", { Accept = "text/event-stream" })
      assert.equal("text/event-stream", response.headers["content-type"])
      assert.equal('data: {"name":"a"}\n\ndata: {"name":"b","tags":["x\\n"]}\n\n', response.body)
      stream({ two }, nil, { stream_format = "sse" })
      assert.equal("text/event-stream", gateway:get("/v1/books").headers["content-type"])
      stream({ two }, nil, { stream_format = "ndjson" })
      assert.equal("application/x-ndjson",
        gateway:get("/v1/books", { Accept = "text/event-stream" }).headers["content-type"])
    end)

    it("however its bytes are cut", function()
      for size = 1, #two do
        local chunks = {}
        for at = 1, #two, size do chunks[#chunks + 1] = two:sub(at, at + size - 1) end
        stream(chunks)
        assert.equal('{"name":"a"}\n{"name":"b","tags":["x\\n"]}\n', gateway:get("/v1/books").body)
      end
    end)

    it("that is empty", function()
      stream {}
      local response = gateway:get("/v1/books")
      assert.same({ 200, "" }, { response.status, response.body })
    end)

    it("whose end is an error", function()
      stream({ frame_of { name = "a" } }, "13")
      assert.equal('{"name":"a"}', gateway:get("/v1/books").body:match("^[^\n]+"))
      local last = gateway:get("/v1/books").body:match("\n(.*)\n$")
      assert.same({ error = { code = 13, message = "over", details = {} } }, json.decode(last))
      assert.matches("event: error\ndata: {", gateway:get("/v1/books", { Accept = "text/event-stream" }).body)
    end)

    it("up to where it cannot be understood", function()
      for chunk, expected in pairs { ["\0\0\0\0\5ab"] = "cut short", ["\1\0\0\0\1a\0\0\0\0\0"] = "compressed",
        ["\0\127\255\255\255abc"] = "more than", ["\0\0\0\0\1\255" .. two] = "malformed" } do
        stream { two, chunk }
        local lines = {}
        for line in gateway:get("/v1/books").body:gmatch("[^\n]+") do lines[#lines + 1] = json.decode(line) end
        assert.equal(3, #lines)
        assert.matches(expected, lines[3].error.message)
      end
    end)
  end)

  describe("checks its configuration:", function()
    local directory

    before_each(function() directory = posix.temporary_directory() end)
    after_each(function() os.execute("rm -r " .. directory) end)

    local function check(text, config)
      process.write_file(directory .. "/a.proto", text)
      config = config or { proto = directory .. "/a.proto" }
      local _, err = spec.check { plugins = { { name = "grpc-gateway", config = config } } }
      return err
    end

    local HEAD = 'syntax = "proto3"; import "google/api/annotations.proto"; message M { string s = 1; M m = 2; '
      .. "repeated string r = 3; } service S {\n"
    local function rule(options)
      return HEAD .. "rpc R(M) returns (M) { option (google.api.http) = { " .. options .. " }; } }"
    end

    it("a file that is not there", function()
      assert.matches("config.proto: expected a .proto file that compiles, found .*/none.proto: No such file",
        check("", { proto = directory .. "/none.proto" }))
      assert.matches("config.descriptor_set: expected a file that can be read, found .*/none: No such file",
        check("", { descriptor_set = directory .. "/none" }))
    end)

    it("a file that is wrong, with the line", function()
      assert.matches("found " .. directory:gsub("%p", "%%%0") .. '/a.proto:2:13: "A" is not defined',
        check 'syntax = "proto3";\nmessage M { A a = 1; }')
      assert.matches("config.descriptor_set: expected a descriptor set, found not a FileDescriptorSet",
        check("no set", { descriptor_set = directory .. "/a.proto" }))
    end)

    for options, expected in pairs {
      ['get: "v1"'] = "does not begin with /", ['get: "/v1/{s"'] = "a variable without an end",
      ['get: "/v1/{}"'] = "a variable needs the name of a field", ['get: "/v1//x"'] = "an empty segment",
      ['get: "/{s=**}/x"'] = "something behind **", ['get: "/{s={m}}"'] = "a variable within a variable",
      ['get: "/{none}"'] = "{none} is no field of M", ['get: "/{r}"'] = "{r} is no field of M",
      ['get: "/{s.s}"'] = "{s.s} is no field of M", ['get: "/{s}x"'] = "unexpected x",
      ['post: "/x" body: "none"'] = "body none is no field of M",
      ['get: "/x" response_body: "none"'] = "response_body none is no field of M",
    } do
      it("the rule " .. options, function()
        local err = check(rule(options))
        assert.matches("config.proto: expected HTTP rules that can be served, found S/R: ", err, 1, true)
        assert.matches(expected, err, 1, true)
      end)
    end

    it("that there are rules at all", function()
      assert.matches("expected methods with google.api.http annotations, found none",
        check(HEAD .. "rpc R(M) returns (M); }"))
      assert.is_nil((check(rule 'get: "/{m.m.s}"')))
    end)

    it("takes a descriptor set as well", function()
      local set = assert(protobuf.compile("library.proto", { ["library.proto"] = process.read_file(FILE) }))
      process.write_file(directory .. "/library.pb", set)
      start(nil, { descriptor_set = directory .. "/library.pb" })
      assert.equal(200, gateway:get("/v1/books/emma").status)
    end)
  end)
end)
