-- For Prosody 0.12 and 13.0: nobody but rosterd changes the rosters of a host's users.
--
-- Put this file into a folder of plugin_paths (Debian: /usr/lib/prosody/modules), and
-- "rosterd_readonly" into modules_enabled of each VirtualHost that rosterd serves.
-- Subscription requests, and answers to them (RFC 6121, section 3), are refused, as are
-- roster sets of clients that rosterd does not see (section 2.1.5). Without that, the
-- server's own rosters differ from the backend's until rosterd looks at them again, and
-- one side that no longer lists the other ends the subscription of both.

local st = require "util.stanza";

local text = "This contact list is kept by the service that your account belongs to.";
local kinds = { subscribe = true, subscribed = true, unsubscribe = true, unsubscribed = true };

local function refuse(event)
	event.origin.send(st.error_reply(event.stanza, "cancel", "not-allowed", text));
	return true;
end

local function outbound(event)
	if not kinds[event.stanza.attr.type] then return; end
	if event.origin.type == "c2s" then return refuse(event); end
	return true; -- the server's own, such as the answer to a probe
end

local function inbound(event)
	local kind = event.stanza.attr.type;
	if not kinds[kind] then return; end
	if kind == "subscribe" and event.origin.type ~= "local" and event.origin.type ~= "c2s" then return refuse(event); end
	return true;
end

for _, to in ipairs { "bare", "full", "host" } do
	module:hook("pre-presence/" .. to, outbound, 100);
end
module:hook("presence/bare", inbound, 100);
module:hook("presence/full", inbound, 100);

module:hook("iq/self/jabber:iq:roster:query", function (event)
	if event.stanza.attr.type == "set" then return refuse(event); end
end, 100);
