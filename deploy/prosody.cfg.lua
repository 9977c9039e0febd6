-- rosterd on Prosody, from 0.12 (Debian 12) to 13.0. docs/prosody.md goes through it.
--
-- It belongs in /etc/prosody/conf.d/rosterd.cfg.lua, with your own domains and secret, and
-- deploy/prosody/mod_rosterd_readonly.lua in a folder of plugin_paths, as Debian's
-- /usr/local/lib/prosody/modules.
--
-- If the VirtualHost is configured in another file already, put the lines between "begin"
-- and "end" into its section there. An option that is set in two places does not add up: the
-- one read last counts.

-- For all of Prosody, so it stands above the first VirtualHost: on 0.12, each item of the
-- rosters that rosterd writes else takes three times as long. It needs Lua 5.4.
gc = { mode = "generational" }

VirtualHost "example.org"
  -- begin: for each domain in rosterd's xmpp.hosts

  -- These are added to the global modules_enabled. There, "roster" stays: it
  -- announces roster versioning (RFC 6121, section 2.6) to the clients.
  -- rosterd_readonly keeps users from changing Prosody's own rosters, and has Prosody act at
  -- once on what rosterd writes there.
  modules_enabled = { "delegation", "privilege", "rosterd_readonly" }

  -- The users' roster queries go to rosterd (XEP-0355).
  delegations = {
    ["jabber:iq:roster"] = { jid = "contacts.example.org" };
  }

  -- What rosterd may do (XEP-0356): hear which users come and go (presence), send
  -- roster pushes in their names (iq), and keep Prosody's own rosters in step with
  -- the backend (roster), by which Prosody sends presence and PEP events. If it
  -- relays presence, it also asks whom they have blocked.
  privileged_entities = {
    ["contacts.example.org"] = {
      presence = "managed_entity";
      iq = {
        ["jabber:iq:roster"] = "set";
        ["urn:xmpp:blocking"] = "get";
      };
      roster = "both";
    };
  }

  -- end

-- rosterd itself (XEP-0114): its xmpp.domain and xmpp.secret.
Component "contacts.example.org"
  component_secret = "change-me"
  -- Here, too, or nothing is announced to rosterd.
  modules_enabled = { "delegation", "privilege" }
  -- Not needed with roster = "both". For rosterd to relay presence between contacts
  -- by itself: take away the dashes before the next line, and set
  -- xmpp.unrestricted: true in rosterd's configuration. Prosody then takes stanzas
  -- from every address, those of the users included, from who has the secret.
  -- validate_from_addresses = false
