package check

import (
	"context"
	"log/slog"

	"rosterd/serverroster"
)

// ejabberd checks ejabberd's HTTP API, if it is to be used.
func (c *checker) ejabberd(ctx context.Context) (found []finding) {
	cfg := c.cfg.Ejabberd.API
	if cfg.URL == "" || c.cfg.XMPP.ServerRoster == "off" {
		return nil
	}
	api, err := serverroster.NewEjabberd(serverroster.EjabberdOptions{
		URL: cfg.URL, Login: serverroster.EjabberdLogin{Token: cfg.Token.Reveal(), User: cfg.User, Password: cfg.Password.Reveal()},
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
			f = f.mend(apiLines(cfg.User)...)
			said = host
		}
		found = append(found, f)
	}
	return found
}

// apiLines are those of ejabberd.yml that let rosterd use the API: by its address, or as a
// user.
func apiLines(user string) []string {
	who := "ip: 127.0.0.0/8"
	if user != "" {
		who = "access: {allow: {user: " + user + "}}"
	}
	return []string{"ejabberd.yml:", "  listen:",
		`    - {port: 5281, ip: "127.0.0.1", module: ejabberd_http, request_handlers: {/api: mod_http_api}}`,
		"  api_permissions:",
		"    rosterd: {from: mod_http_api, who: {" + who + "}, what: [get_roster, add_rosteritem, delete_rosteritem]}",
		"  modules:", "    mod_http_api: {}", "    mod_admin_extra: {}", "    in mod_roster: access: none, store_current_id: true",
		"rosterd's configuration: ejabberd.api.url: http://127.0.0.1:5281/api"}
}
