-- Reads and writes the rosters of a Prosody's users past everything else:
-- GET /harness_rosters/juliet@example.org answers the items as JSON, POST sets some.

local array = require "util.array";
local json = require "util.json";
local jid = require "util.jid";
local rosters = require "core.rostermanager";

module:depends("http");

local function read(_, bare)
	local username, host = jid.split(bare);
	module:log("info", "the roster of %s is read", bare);
	local items = array();
	for contact, item in pairs(rosters.load_roster(username, host) or {}) do
		if type(contact) == "string" then
			local groups = array();
			for group in pairs(item.groups or {}) do
				groups:push(group);
			end
			items:push { jid = contact, name = item.name, subscription = item.subscription, ask = item.ask, groups = groups };
		end
	end
	return json.encode(items);
end

local function write(event, bare)
	local username, host = jid.split(bare);
	local roster = rosters.load_roster(username, host);
	local items = json.decode(event.request.body);
	for _, item in ipairs(items) do
		if item.subscription == "remove" then
			roster[item.jid] = nil;
		else
			local groups = {};
			for _, group in ipairs(item.groups) do
				groups[group] = true;
			end
			roster[item.jid] = { subscription = item.subscription, name = item.name, groups = groups };
		end
	end
	rosters.save_roster(username, host, roster);
	for _, item in ipairs(items) do
		rosters.roster_push(username, host, item.jid);
	end
	return 204;
end

module:provides("http", {
	default_path = "/harness_rosters";
	route = { ["GET /*"] = read, ["POST /*"] = write };
});
