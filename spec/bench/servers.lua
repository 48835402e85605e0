-- SPDX-License-Identifier: Apache-2.0
-- The servers of a benchmark, pinned: what is measured on core 0, the origin and the load on core 1.
local gateway = require "spec.support.gateway"
local http = require "spec.support.http"
local posix = require "spec.support.posix"
local process = require "spec.support.process"
local tls = require "spec.support.tls"

local servers = {}

servers.MEASURED_CORE, servers.OTHER_CORE = "0", "1"

-- nginx as Debian has it, one worker, no access log. Kept-alive connections are never recycled and buffers are 64 KB,
-- as in Sluice: with its own 4 KB nginx passes large bodies several times slower.
local nginx_conf = [[
load_module modules/ngx_http_echo_module.so;
daemon off;
master_process on;
worker_processes 1;
pid %s/nginx.pid;
error_log %s/error.log;
events { worker_connections 8192; }
http {
  access_log off;
  client_body_temp_path %s/body;
  proxy_temp_path %s/proxy;
  fastcgi_temp_path %s/fastcgi;
  uwsgi_temp_path %s/uwsgi;
  scgi_temp_path %s/scgi;
  proxy_cache_path %s/cache keys_zone=cache:16m;
  proxy_max_temp_file_size 0;
  proxy_buffer_size 16k;
  proxy_buffers 16 64k;
  proxy_busy_buffers_size 256k;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  sendfile on;
%s
}
]]

local function wait_for(port)
  process.wait_until(function()
    local client = http.connect(port)
    if client then client:close() end
    return client
  end, 10, "port " .. port)
end

-- Starts nginx on `core`; `blocks` stands inside its http block, where DIRECTORY is a folder of its own.
function servers.nginx(core, port, blocks)
  local directory = posix.temporary_directory()
  os.execute("chmod 755 '" .. directory .. "'") -- nginx's worker is another user
  local path = directory .. "/nginx.conf"
  local text = nginx_conf:gsub("%%s", directory, 8):gsub("%%s", (blocks:gsub("%%", "%%%%")))
  process.write_file(path, (text:gsub("DIRECTORY", directory)))
  local self = { port = port, name = "nginx" }
  self.process = process.start({ "taskset", "-c", core, "nginx", "-c", path, "-e", directory .. "/error.log" },
    { directory = directory, owns_directory = true })
  wait_for(port)
  self.worker = servers.child(self.process.pid, "nginx: worker")
  return self
end

-- The pid of the child whose title begins so.
function servers.child(pid, title)
  return process.wait_until(function()
    for child in process.read_file(("/proc/%d/task/%d/children"):format(pid, pid)):gmatch("%d+") do
      if process.read_file("/proc/" .. child .. "/cmdline"):find(title, 1, true) == 1 then return tonumber(child) end
    end
  end, 5, title)
end

-- 1 KB of JSON as services answer: an object of texts, numbers, a list of objects.
function servers.json_1k()
  local items = {}
  for i = 1, 8 do
    items[i] = ('{"id":%d,"sku":"item-%03d","quantity":%d,"price":%d.95,"in_stock":true}'):format(1000 + i, i, i, i * 3)
  end
  local text = ('{"id":"0b7c2f3e","customer":{"name":"A. Customer","email":"customer@example.test","vip":false},'
    .. '"internal":"not for everybody","status":"open","items":[%s],"total":123.45,"note":"')
    :format(table.concat(items, ","))
  return text .. ("x"):rep(1024 - #text - 2) .. '"}'
end

-- The origin: /128, /1k, /json and anything else from memory, /1m from a file; on its grpc_port over HTTP/2, with
-- trailers, as a gRPC service answers.
function servers.origin()
  local directory = posix.temporary_directory()
  os.execute("chmod 755 '" .. directory .. "'")
  process.write_file(directory .. "/1m", ("0123456789abcdef"):rep(65536))
  local port, grpc_port = process.free_port(), process.free_port()
  local self = servers.nginx(servers.OTHER_CORE, port, ([[
  server {
    listen 127.0.0.1:%d backlog=4096;
    location / { return 200 "%s"; }
    location /1k { return 200 "%s"; }
    location = /json { default_type application/json; return 200 '%s'; }
    location = /1m { root %s; }
  }
  server {
    listen 127.0.0.1:%d http2 backlog=4096;
    http2_max_concurrent_streams 1000;
    location / {
      default_type application/grpc;
      add_trailer grpc-status 0;
      echo_read_request_body; # which nginx's grpc_pass wants of its services
      echo -n "%s";
    }
  }]]):format(port, ("x"):rep(128), ("x"):rep(1024), servers.json_1k(), directory, grpc_port, ("x"):rep(128)))
  self.files, self.grpc_port = directory, grpc_port
  return self
end

-- nginx as a proxy to the origin. `options`: tls, http2 (to clients), grpc (both ways), http (more of the http block),
-- location (more of the location).
function servers.proxy(origin, options)
  local port = process.free_port()
  local listen = ("listen 127.0.0.1:%d backlog=4096%s%s;"):format(port, options.tls and " ssl" or "",
    options.http2 and " http2" or "")
  if options.tls then
    listen = listen .. (" ssl_certificate %s; ssl_certificate_key %s; ssl_session_cache shared:s:10m;")
      :format(options.tls.certificate, options.tls.key)
  end
  local pass = options.grpc and "grpc_pass grpc://origin;"
    or 'proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";'
  return servers.nginx(servers.MEASURED_CORE, port, ([[
  upstream origin { server 127.0.0.1:%d; keepalive 512; keepalive_requests 1000000000; }
  %s
  server {
    %s
    location / {
      %s
      %s
    }
  }]]):format(options.grpc and origin.grpc_port or origin.port, options.http or "", listen, options.location or "",
    pass))
end

function servers.sluice(config, options)
  options = options or {}
  local self = gateway.start(config, options)
  self.name = "sluice"
  self.worker = self:workers()[1]
  assert(self.worker, "no process is titled sluice: worker")
  -- The worker alone has the core to itself, as in production: checkers run where there is room.
  assert(process.run({ "taskset", "-p", "-c", servers.MEASURED_CORE, tostring(self.worker) }) == 0)
  return self
end

-- A certificate for the TLS cases, as both servers take it.
function servers.certificate()
  local directory = posix.temporary_directory()
  local made = tls.make_certificate(directory, { name = "bench.test" })
  made.directory = directory
  return made
end

function servers.stop(server)
  if server.stop then return server:stop() end
  server.process:stop(5)
  server.process:forget()
  if server.files then process.remove(server.files) end
end

return servers
