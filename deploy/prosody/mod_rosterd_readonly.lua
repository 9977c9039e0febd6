-- For Prosody 0.12 and 13.0: nobody but rosterd changes the rosters of a host's users.
--
-- Put this file into a folder of plugin_paths (Debian: /usr/local/lib/prosody/modules), and
-- "rosterd_readonly" into modules_enabled of each VirtualHost that rosterd serves.
-- Subscription requests, and answers to them (RFC 6121, section 3), are refused, as are
-- roster sets of clients that rosterd does not see (section 2.1.5), which are pushed what is
-- true. Without that, the server's own rosters differ from the backend's until rosterd looks
-- at them again, and one side that no longer lists the other ends the subscription of both.
-- Requests that are open from before are forgotten: nobody could answer them any more.
--
-- What rosterd writes is seen at once, as after a subscription: a contact who may see a
-- user from now on is sent the user's presence, who no longer may is sent unavailable, and
-- whom the user may see is asked. Prosody by itself goes by it from the next presence on.

local jid_bare, jid_prep = require "util.jid".bare, require "util.jid".prep;
local roster_push = require "core.rostermanager".roster_push;
local st = require "util.stanza";

local text = "This contact list is kept by the service that your account belongs to.";
local kinds = { subscribe = true, subscribed = true, unsubscribe = true, unsubscribed = true };

local function refuse(event)
	local reply = st.error_reply(event.stanza, "cancel", "not-allowed", text);
	if event.origin.type == "component" then -- so rosterd knows that it need not relay that
		reply:get_child("error"):tag("exchanges", { xmlns = "urn:rosterd:presence" });
	end
	event.origin.send(reply);
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

-- Some clients show what they asked for until they are pushed how it is.
module:hook("iq/self/jabber:iq:roster:query", function (event)
	if event.stanza.attr.type ~= "set" then return; end
	local item = event.stanza.tags[1]:get_child("item");
	refuse(event);
	if item then roster_push(event.origin.username, event.origin.host, jid_bare(jid_prep(item.attr.jid))); end
	return true;
end, 100);

module:hook("roster-load", function (event)
	event.roster[false].pending = {};
	for _, item in pairs(event.roster) do item.ask = nil; end
end);

local shows, sees = { from = true, both = true }, { to = true, both = true };

local function subscriptions(roster, query)
	local found = {};
	for item in query:childtags("item") do
		local contact = jid_prep(item.attr.jid);
		if contact then
			found[contact] = roster[contact] and roster[contact].subscription or "none";
		end
	end
	return found;
end

local function exchange(session, contact, before, after)
	local presence;
	if shows[after] and not shows[before] then
		presence = st.clone(session.presence);
	elseif shows[before] and not shows[after] then
		presence = st.presence { type = "unavailable", from = session.full_jid };
	end
	if presence then
		presence.attr.to = contact;
		prosody.core_post_stanza(session, presence, true);
	end
	if sees[after] and not sees[before] then
		prosody.core_post_stanza(session, st.presence { type = "probe", from = session.full_jid, to = contact }, true);
	end
end

-- A roster set by privilege (XEP-0356, section 5).
module:wrap_event("iq-set/bare/jabber:iq:roster:query", function (handlers, name, event)
	local user, query = prosody.bare_sessions[event.stanza.attr.to], event.stanza.tags[1];
	if not (user and user.roster) then return handlers(name, event); end
	local before = subscriptions(user.roster, query);
	local handled = handlers(name, event);
	for contact, after in pairs(subscriptions(user.roster, query)) do
		for _, session in pairs(user.sessions) do
			if session.presence then
				exchange(session, contact, before[contact], after);
			end
		end
	end
	return handled;
end);
