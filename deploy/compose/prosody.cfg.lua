-- The global section of the Prosody of compose.yaml, to try things out: no TLS, no
-- federation. conf.d has the domain and the component.
interfaces = { "*" }
component_interfaces = { "*" } -- rosterd is in another container
modules_enabled = { "roster", "saslauth", "disco", "ping", "pep", "blocklist" }
modules_disabled = { "s2s", "tls" }
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_hashed"
log = { { levels = { min = "info" }, to = "console" } }

Include "conf.d/*.cfg.lua"
