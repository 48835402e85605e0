-- SPDX-License-Identifier: Apache-2.0
-- What bots that say who they are call themselves, from their operators' public pages: patterns of which one, in any
-- case, is found in their User-Agent. Tools that people use by hand (curl, wget) and libraries are not among them.
return {
  -- Search engines
  [[\b(?:googlebot|storebot-google|google-inspectiontool|googleother|adsbot-google|mediapartners-google)\b]],
  [[\b(?:feedfetcher-google|google-read-aloud|google-site-verification|apis-google|google-safety|duplexweb-google)\b]],
  [[\b(?:bingbot|bingpreview|msnbot|adidxbot|microsoftpreview)\b]],
  [[\b(?:slurp|yahooseeker|yahoo link preview|y!j-[a-z]{3})\b]],
  [[\byandex[a-z]*(?:bot|images|media|video|direct|metrika|favicons|webmaster|pagechecker|blogs|news)\b]],
  [[\b(?:baiduspider|sogou (?:web|inst|pic|news|video|orion) ?spider|360spider|haosouspider|yisouspider|bytespider)\b]],
  [[\b(?:duckduckbot|duckduckgo-favicons-bot|duckassistbot|applebot|qwantbot|qwantify|mojeekbot|seznambot|petalbot)\b]],
  [[\b(?:exabot|gigabot|coccocbot|naverbot|daumoa|mail\.ru_bot|rambler|teoma|ask jeeves|startmebot)\b]],
  [[\b(?:archive\.org_bot|ia_archiver|heritrix|nutch|ccbot|wotbox|yacybot|gigablast|exalead)\b]],
  -- Previews in social networks and messengers
  [[\b(?:facebookexternalhit|facebookcatalog|facebot|meta-[a-z]+|twitterbot|linkedinbot)\b]],
  [[\b(?:pinterest(?:bot)?/|slackbot|slack-imgproxy|discordbot|telegrambot|whatsapp/|skypeuripreview|redditbot)]],
  [[\b(?:embedly|quora link preview|tumblr/|vkshare|viber/|bitlybot|flipboardproxy|mastodon/|snap url preview)]],
  -- Those that gather texts for language models
  [[\b(?:gptbot|chatgpt-user|oai-searchbot|claudebot|claude-web|claude-user|anthropic-ai|perplexity(?:bot|-user))\b]],
  [[\b(?:google-extended|cohere-ai|diffbot|ai2bot|amazonbot|youbot|omgilibot|imagesiftbot|timpibot)\b]],
  -- Marketing and analysis of links
  [[\b(?:ahrefsbot|ahrefssiteaudit|semrushbot|siteauditbot|mj12bot|dotbot|rogerbot|blexbot|barkrowler)\b]],
  [[\b(?:serpstatbot|seokicks|linkdexbot|lssbot|megaindex|sistrix|xovibot|searchmetricsbot|screaming frog)\b]],
  [[\b(?:dataforseobot|brandwatch|trendictionbot|mediatoolkitbot|awariobot|cincraw|proximic|grapeshot|ttd-content)\b]],
  -- Monitoring
  [[\b(?:pingdom\.com_bot|pingdompagespeed|pingdomtms|uptimerobot|statuscake|site24x7|newrelicpinger|montastic)]],
  [[\b(?:googlestackdrivermonitoring|updown\.io|hetrixtools|betteruptime|freshping|nodeping|binarycanary|alertsite)]],
  [[\b(?:gtmetrix|chrome-lighthouse|google page speed insights|ptst/|dareboost|catchpoint)]],
  -- Readers of feeds
  [[\b(?:feedly|feedburner|feedbin|newsblur|inoreader|theoldreader|bloglines|universalfeedparser|tiny tiny rss)\b]],
  -- Scanners and harvesters
  [[\b(?:nmap scripting engine|nikto|sqlmap|masscan|zgrab|nuclei|wpscan|dirbuster|gobuster|acunetix|netsparker)\b]],
  [[\b(?:censysinspect|shodan|expanse|internet-measurement|netsystemsresearch|paloaltonetworks|leakix|l9explore)\b]],
  [[\b(?:httrack|webcopier|webzip|teleport pro|offline explorer|websucker|emailcollector|emailsiphon|emailwolf)\b]],
  [[\b(?:scrapy|phantomjs|headlesschrome|slimerjs|zombie\.js|webharvest|80legs|grub-client|larbin)\b]],
  -- What names itself a bot, with a version or an address behind it
  [[(?:^|[ (;])[a-z][a-z0-9._-]*(?:bot|crawler|spider|scraper)(?:/[0-9v]|[;,]? ?\(?\+?https?://)]],
}
