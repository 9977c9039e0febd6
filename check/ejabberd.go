package check

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"strings"

	"rosterd/config"
	"rosterd/serverroster"
)

// ejabberd checks ejabberd's HTTP API, if it is to be used.
func (c *checker) ejabberd(ctx context.Context) (found []finding) {
	if !c.usesAPI() {
		return nil
	}
	cfg := c.cfg.Ejabberd.API
	base, _ := cfg.BaseURL() // the configuration was loaded
	api, err := serverroster.NewEjabberd(serverroster.EjabberdOptions{
		URL: base, Login: serverroster.EjabberdLogin{Token: cfg.Token.Reveal(), User: cfg.User, Password: cfg.Password.Reveal()},
		Hosts: c.cfg.XMPP.Hosts, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return []finding{fail("ejabberd.api.url: %s", err)}
	}
	defer api.Close()
	api.Prove(ctx)
	c.api = api
	said := "" // the lines that mend it
	for _, host := range c.cfg.XMPP.Hosts {
		works, why := api.State(host)
		if works {
			notes := []string{"it does not say whether users can change these themselves: access: none in mod_roster refuses that, but for unsubscribe"}
			if !c.cfg.XMPP.Unrestricted && !api.Probes(host) {
				notes = append(notes, "who was online before a user who adds them is seen with their next presence: send_stanza, beside add_rosteritem, has them seen at once; "+
					"it also lets its caller send anything in the name of any user")
			}
			found = append(found, pass("%s: ejabberd's API reads and writes its own rosters", host).mend(notes...))
			continue
		}
		f := fail("%s: ejabberd's API does not work: %s", host, why)
		if said == "" {
			f = f.mend(apiLines(c.cfg)...)
			said = host
		}
		found = append(found, f)
	}
	return found
}

// apiLines are those of ejabberd.yml that let rosterd use the API as it is configured: with a
// token, as a user, or by its address.
func apiLines(cfg config.Config) []string {
	const commands = "get_roster, add_rosteritem, delete_rosteritem"
	base, _ := cfg.Ejabberd.API.BaseURL() // the configuration was loaded
	u, err := url.Parse(cmp.Or(base, "http://127.0.0.1:5281/api"))
	if err != nil {
		return nil
	}
	// An address that is rosterd's, too, if both are on one machine.
	listens, caller := "", "ADDRESS"
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && ip.IsLoopback() && ip.Is6() {
		listens, caller = `, ip: "::1"`, `"::1"`
	} else if err == nil && ip.IsLoopback() || strings.EqualFold(u.Hostname(), "localhost") {
		listens, caller = `, ip: "127.0.0.1"`, "127.0.0.0/8"
	}
	port := u.Port()
	if u.Scheme == "https" {
		port, listens = cmp.Or(port, "443"), listens+", tls: true"
	}
	lines := []string{"ejabberd.yml:", "  listen:",
		fmt.Sprintf("    - {port: %s%s, module: ejabberd_http, request_handlers: {%q: mod_http_api}}", cmp.Or(port, "80"), listens, cmp.Or(strings.TrimRight(u.EscapedPath(), "/"), "/"))}
	account, who := "rosterd@"+cfg.XMPP.Hosts[0], "ip: "+caller
	switch {
	case cfg.Ejabberd.API.Token != "":
		allow := "{allow: {user: " + account + "}}"
		who = "oauth: {scope: [" + commands + "], access: " + allow + "}"
		lines = append(lines, "  oauth_access: "+allow)
	case cfg.Ejabberd.API.User != "":
		who = "access: {allow: {user: " + cfg.Ejabberd.API.User + "}}"
	}
	lines = append(lines, "  api_permissions:",
		"    rosterd: {from: mod_http_api, who: {"+who+"}, what: ["+commands+"]}")
	if who == "ip: ADDRESS" {
		lines = append(lines, "    with the address that rosterd calls from in place of ADDRESS")
	}
	lines = append(lines, "  modules:", "    mod_http_api: {}", "    mod_admin_extra: {}", "    in mod_roster: access: none, store_current_id: true")
	if cfg.Ejabberd.API.Token != "" {
		lines = append(lines, "the token is of "+account+", or of another account, with its name in these lines (docs/ejabberd.md):",
			"  ejabberdctl oauth_issue_token "+account+" 31536000 'get_roster;add_rosteritem;delete_rosteritem'",
			"  (from 24.02 on with commas; Debian's ejabberd needs the package erlang-p1-oauth2)")
	}
	if base == "" {
		lines = append(lines, "rosterd's configuration: ejabberd.api.url: "+u.String())
	}
	return lines
}
