-- SPDX-License-Identifier: Apache-2.0
local spec = require "sluice.spec"

local BOTS = {
  "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
  "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/W.X.Y.Z "
    .. "Mobile Safari/537.36 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
  "AdsBot-Google (+http://www.google.com/adsbot.html)", "Googlebot-Image/1.0",
  "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
  "Mozilla/5.0 (compatible; Yahoo! Slurp; http://help.yahoo.com/help/us/ysearch/slurp)",
  "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
  "Mozilla/5.0 (compatible; Baiduspider/2.0; +http://www.baidu.com/search/spider.html)",
  "Sogou web spider/4.0(+http://www.sogou.com/docs/help/webmasters.htm#07)",
  "DuckDuckBot/1.1; (+http://duckduckgo.com)",
  "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)", "Twitterbot/1.0",
  "LinkedInBot/1.0 (compatible; Mozilla/5.0; Apache-HttpClient +http://www.linkedin.com)",
  "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", "Mozilla/5.0 (compatible; Discordbot/2.0; "
    .. "+https://discordapp.com)", "TelegramBot (like TwitterBot)", "WhatsApp/2.19.81 A",
  "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
  "Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)",
  "Mozilla/5.0 (compatible; SemrushBot/7~bl; +http://www.semrush.com/bot.html)",
  "Mozilla/5.0 (compatible; MJ12bot/v1.4.8; http://mj12bot.com/)", "CCBot/2.0 (https://commoncrawl.org/faq/)",
  "Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)", "Mozilla/5.0+(compatible; UptimeRobot/2.0; "
    .. "http://www.uptimerobot.com/)", "Mozilla/5.00 (Nikto/2.1.6) (Evasions:None) (Test:Port Check)",
  "sqlmap/1.4.7#stable (http://sqlmap.org)", "Scrapy/2.5.0 (+https://scrapy.org)", "ia_archiver",
  "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/120.0.0.0 Safari/537.36",
  "SomethingNewBot/0.1", "my-crawler/2.0", "Mozilla/5.0 (compatible; newspider; +https://new.example/spider)",
}

local PEOPLE = {
  "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36",
  "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_2) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.2 Safari/605.1.15",
  "Mozilla/5.0 (X11; Linux x86_64; rv:121.0) Gecko/20100101 Firefox/121.0",
  "Mozilla/5.0 (iPhone; CPU iPhone OS 17_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
  "Mozilla/5.0 (Linux; Android 9; CUBOT_X19 Build/PPR1.180610.011) AppleWebKit/537.36 Chrome/120.0.0.0 Mobile "
    .. "Safari/537.36", "Mozilla/5.0 (Linux; Android 10; CUBOT NOTE 20) AppleWebKit/537.36 Chrome/120.0.0.0",
  "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/120.0.0.0 Safari/537.36 Edg/120.0.2210.91",
  "Opera/9.80 (Windows NT 6.1; WOW64) Presto/2.12.388 Version/12.18", "curl/8.5.0", "Wget/1.21.4",
  "python-requests/2.31.0", "Go-http-client/1.1", "okhttp/4.12.0", "grpc-go/1.60.1", "PostmanRuntime/7.36.0",
  "axios/1.6.2", "Apache-HttpClient/4.5.14 (Java/17.0.9)", "k6/0.48.0", "kube-probe/1.28", "My Robotics App 1.0",
}

describe("bot-detection", function()
  local gateway

  local function start(config)
    gateway = spec.gateway { plugins = { { name = "bot-detection", config = config } } }
  end

  local function status(agent)
    return gateway:get("/", { ["User-Agent"] = agent }).status
  end

  it("refuses bots that say who they are", function()
    start()
    for _, agent in ipairs(BOTS) do
      for _ = 1, 2 do -- the second time by what is kept
        local response = gateway:get("/", { ["User-Agent"] = agent })
        assert.same({ agent, 403, "Forbidden" }, { agent, response.status, response.json.message })
      end
    end
    assert.equal(0, #gateway:requests())
  end)

  it("lets browsers, tools and libraries pass", function()
    start()
    for _, agent in ipairs(PEOPLE) do
      for _ = 1, 2 do assert.same({ agent, 200 }, { agent, status(agent) }) end
    end
  end)

  it("lets who says nothing pass, as Kong does", function()
    start { deny = { ".*" } }
    assert.equal(200, gateway:get("/").status)
  end)

  it("takes the lists by their names of before Kong 3", function()
    start { blacklist = { "^evil" }, whitelist = { "Googlebot" } }
    assert.same({ 403, 200 }, { status "evil/1", status "Googlebot-Image/1.0" })
  end)

  it("refuses who says it twice", function()
    start()
    local response = gateway:request { path = "/", headers = { { "User-Agent", "curl/8" }, { "User-Agent", "x" } } }
    assert.same({ 400, "Only one User-Agent header allowed" }, { response.status, response.json.message })
  end)

  it("refuses whom deny names, case by case", function()
    start { deny = { "^curl/", "Go-http" } }
    assert.same({ 403, 403, 200, 200 }, { status "curl/8.5.0", status "Go-http-client/1.1", status "Curl/8",
      status "libcurl/8" })
    assert.equal(403, status "Googlebot/2.1")
  end)

  it("lets whom allow names pass, even when deny names it too", function()
    start { allow = { "Googlebot", "^curl/8" }, deny = { "^curl" } }
    assert.same({ 200, 200, 403, 403 }, { status "Googlebot/2.1", status "curl/8.5.0", status "curl/7", status
      "bingbot/2.0" })
  end)

  it("takes each expression by itself", function()
    start { deny = { "(?<a>x)\\k<a>", "(?<a>y)\\k<a>", "(z)\\1" } }
    assert.same({ 403, 403, 403, 200 }, { status "-xx-", status "-yy-", status "-zz-", status "-xyz-" })
  end)

  it("keeps what was found out to its configuration", function()
    gateway = spec.gateway { routes = {
      { name = "a", paths = { "/a" }, plugins = { { name = "bot-detection", config = { deny = { "curl" } } } } },
      { name = "b", paths = { "/b" }, plugins = { { name = "bot-detection" } } } } }
    for _ = 1, 2 do
      assert.equal(403, gateway:get("/a", { ["User-Agent"] = "curl/8" }).status)
      assert.equal(404, gateway:get("/c", { ["User-Agent"] = "curl/8" }).status)
      assert.not_equal(403, gateway:get("/b", { ["User-Agent"] = "curl/8" }).status)
    end
  end)

  it("judges long texts too", function()
    start { deny = { "^a+b$" } }
    assert.equal(403, status(("a"):rep(5000) .. "b"))
    assert.equal(200, status(("a"):rep(5000) .. "c"))
  end)

  it("refuses a configuration with what is no expression", function()
    local function refusal(config)
      return select(2, spec.check { plugins = { { name = "bot-detection", config = config } } })
    end
    assert.matches("deny.*expected a regular expression", refusal { deny = { "(" } })
    assert.matches("allow.*expected a regular expression", refusal { allow = { "ok", "[" } })
  end)
end)
