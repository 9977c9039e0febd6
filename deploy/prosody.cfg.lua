-- rosterd on Prosody, from 0.12, which Debian 12 has, to 13.0 (packages prosody
-- and prosody-modules). Put it into /etc/prosody/conf.d/rosterd.cfg.lua, with your
-- own domains and secret, and restart Prosody. README.md, "Set-up on Prosody",
-- goes through it.
--
-- If the VirtualHost is configured in another file already, put the lines
-- between "begin" and "end" into its section there. An option that is set in
-- two places does not add up: the one read last counts.

VirtualHost "example.org"
  -- begin: for each domain in rosterd's xmpp.hosts

  -- These are added to the global modules_enabled. There, "roster" stays: it
  -- announces roster versioning (RFC 6121, section 2.6) to the clients.
  modules_enabled = { "delegation", "privilege" }

  -- The users' roster queries go to rosterd (XEP-0355).
  delegations = {
    ["jabber:iq:roster"] = { jid = "contacts.example.org" };
  }

  -- What rosterd may do (XEP-0356). It needs two things: to hear which users
  -- come and go (presence), and to send roster pushes in their names (iq). If it
  -- relays presence, it also asks whom they have blocked. It does not use the
  -- other two.
  privileged_entities = {
    ["contacts.example.org"] = {
      presence = "managed_entity";
      iq = {
        ["jabber:iq:roster"] = "set";
        ["urn:xmpp:blocking"] = "get";
      };
      roster = "both";
      message = "outgoing";
    };
  }

  -- end

-- rosterd itself (XEP-0114): its xmpp.domain and xmpp.secret.
Component "contacts.example.org"
  component_secret = "change-me"
  -- Here, too, or nothing is announced to rosterd.
  modules_enabled = { "delegation", "privilege" }
  -- For rosterd to relay presence between contacts: take away the dashes before
  -- the next line, and set xmpp.unrestricted: true in rosterd's configuration.
  -- Prosody then takes stanzas from every address, those of the users included,
  -- from who has the secret.
  -- validate_from_addresses = false
