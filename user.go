package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rosterd/admin"
	"rosterd/config"
	"rosterd/jid"
	"rosterd/roster"
	"rosterd/users"
)

// rights says who may ask.
const rights = `
It needs the rights of the state file: the rosterd that runs is asked through a
socket beside it, which root and the user that it runs as may connect to.`

// user is `rosterd user`.
func (c *command) user() *cobra.Command {
	var asJSON, fetch bool
	user := &cobra.Command{
		Use: "user NAME", Short: "say what rosterd knows of a user", Args: cobra.ExactArgs(1),
		Long: `user says what rosterd knows of a user, by localpart or bare JID: their sessions and
what each was told, the roster with its version and when it was fetched, why the user
is to be refreshed again, what the removal guard holds, the last error. If no rosterd
runs, it reads the state file, which it does not change. Of a pair, only the active
instance can be asked, on its machine.
` + rights,
		RunE: runs(func(ctx context.Context, args []string) error {
			cfg, name, err := c.named(args[0])
			if err != nil {
				return err
			}
			known, err := lookAt(ctx, cfg, name)
			if err != nil {
				return err
			}
			answer := userAnswer{User: known}
			if fetch {
				answer.Fetch = fetchNow(ctx, cfg, name, known)
			}
			if asJSON {
				return writeJSON(c.stdout, answer)
			}
			answer.print(c.stdout, time.Now())
			return nil
		}),
	}
	user.Flags().BoolVar(&asJSON, "json", false, "answer in JSON")
	user.Flags().BoolVar(&fetch, "fetch", false, "also ask the backend now, and say what would change; nobody is pushed anything")
	return user
}

// held is `rosterd held`.
func (c *command) held() *cobra.Command {
	var asJSON bool
	held := &cobra.Command{
		Use: "held", Short: "list the users of whom the removal guard holds something", Args: cobra.NoArgs,
		Long: `held lists the users whose roster from the backend is not applied, as it would remove
more than contacts.max_removed of their contacts. rosterd user says which.
` + rights,
		RunE: runs(func(ctx context.Context, _ []string) error {
			cfg, _, err := config.Load(c.file)
			if err != nil {
				return err
			}
			list, err := admin.NewClient(admin.Path(stateFile(cfg))).Held(ctx)
			switch {
			case err != nil:
				return asked(cfg, err)
			case asJSON:
				return writeJSON(c.stdout, list)
			case len(list) == 0:
				fmt.Fprintln(c.stdout, "nothing is held")
			}
			for _, h := range list {
				fmt.Fprintf(c.stdout, "%s: %s\n", h.User, inWords(h, time.Now()))
			}
			return nil
		}),
	}
	held.Flags().BoolVar(&asJSON, "json", false, "answer in JSON")
	return held
}

// approve is `rosterd approve`.
func (c *command) approve() *cobra.Command {
	return c.decide("approve", "have what the removal guard holds be applied",
		`approve has the roster be applied that the removal guard holds for each of the users:
their contacts are removed. The backend is asked first: if it says something else by
now, the guard looks at that anew.
`, "approved", (*admin.Client).Approve)
}

// reject is `rosterd reject`.
func (c *command) reject() *cobra.Command {
	return c.decide("reject", "have what the removal guard holds not be applied",
		`reject has the roster not be applied that the removal guard holds for each of the
users, also after a restart: they keep their contacts until the backend says something
else, or rosterd approve is called. Without that, what is held is applied after
contacts.confirm_after.
`, "rejected", (*admin.Client).Reject)
}

// decide is a command that decides what is held of some users.
func (c *command) decide(name, short, long, done string, decide func(*admin.Client, context.Context, jid.JID) error) *cobra.Command {
	return &cobra.Command{
		Use: name + " NAME…", Short: short, Long: long + rights, Args: cobra.MinimumNArgs(1),
		RunE: runs(func(ctx context.Context, args []string) (failed error) {
			for _, arg := range args {
				cfg, user, err := c.named(arg)
				if err == nil {
					err = asked(cfg, decide(admin.NewClient(admin.Path(stateFile(cfg))), ctx, user))
				}
				if err != nil {
					failed = errSaid
					fmt.Fprintf(c.stderr, "rosterd: %s: %s\n", arg, err)
					continue
				}
				fmt.Fprintf(c.stdout, "%s: %s\n", user, done)
			}
			return failed
		}),
	}
}

// named loads the configuration, and says which user a name means.
func (c *command) named(name string) (config.Config, jid.JID, error) {
	cfg, _, err := config.Load(c.file)
	if err != nil {
		return config.Config{}, jid.JID{}, err
	}
	hosts := strings.Join(cfg.XMPP.Hosts, ", ")
	if len(cfg.XMPP.Hosts) > 1 && !strings.Contains(name, "@") {
		return config.Config{}, jid.JID{}, fmt.Errorf("%q wants a domain, several are served: %s", name, hosts)
	}
	user, err := jid.ParseUser(name, cfg.XMPP.Hosts[0])
	switch {
	case err != nil:
		return config.Config{}, jid.JID{}, fmt.Errorf("%q is no user's name", name)
	case !slices.Contains(cfg.XMPP.Hosts, user.Domain()):
		return config.Config{}, jid.JID{}, fmt.Errorf("%q is of a domain that is not served, as %s are", name, hosts)
	}
	return cfg, user, nil
}

// serviceState is the state file of a service of systemd's, for who has not its environment.
var serviceState = "/var/lib/rosterd/rosterd.db" // another one in tests

// stateFile is the state file that a rosterd with this configuration has. An instance of a
// pair has none, but its socket is in the same place.
func stateFile(cfg config.Config) string {
	path := cfg.State.Path
	if path != config.Default().State.Path || os.Getenv("STATE_DIRECTORY") != "" {
		return path
	}
	there := func(state string) bool {
		if cfg.State.URL != "" {
			state = admin.Path(state)
		}
		_, err := os.Stat(state)
		return !errors.Is(err, fs.ErrNotExist)
	}
	if !there(path) && there(serviceState) {
		return serviceState
	}
	return path
}

// errStandby is for who asks an instance of a pair that is not the active one, or does not run.
var errStandby = errors.New("no active instance of the pair runs here: ask on the machine of the one that is, which rosterd check names")

// asked is an error of the rosterd that was asked, as who asked has to know it.
func asked(cfg config.Config, err error) error {
	if cfg.State.URL != "" && errors.Is(err, admin.ErrNotRunning) {
		return errStandby
	}
	return err
}

// lookAt asks the rosterd that runs, or reads the state file.
func lookAt(ctx context.Context, cfg config.Config, user jid.JID) (admin.User, error) {
	file := stateFile(cfg)
	if file == "" {
		return admin.User{}, errors.New("state.path is empty: there is no file beside which the rosterd that runs could be asked")
	}
	known, err := admin.NewClient(admin.Path(file)).User(ctx, user)
	if errors.Is(err, admin.ErrNotRunning) && cfg.State.URL == "" {
		return admin.Look(file, user)
	}
	return known, asked(cfg, err)
}

// userAnswer is what `rosterd user` says.
type userAnswer struct {
	admin.User
	Fetch *fetchAnswer `json:"fetch,omitempty"`
}

// fetchAnswer is what the backend says now.
type fetchAnswer struct {
	Error    string   `json:"error,omitempty"` // why there is no roster
	Contacts int      `json:"contacts"`
	Missing  bool     `json:"missing"` // the backend does not know the user
	Held     bool     `json:"held"`    // the removal guard would hold that
	Changes  []change `json:"changes"` // what would be pushed to who shows the last known roster
}

type change struct {
	Action  string        `json:"action"` // added, changed or removed
	Contact users.Contact `json:"contact"`
}

// fetchNow asks the backend as rosterd would, and compares.
func fetchNow(ctx context.Context, cfg config.Config, user jid.JID, known admin.User) *fetchAnswer {
	answer := &fetchAnswer{Changes: []change{}}
	f, err := inspecting(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		answer.Error = err.Error()
		return answer
	}
	defer f.Close()
	got, err := f.Fetch(ctx, roster.Request{User: user, Hurry: true})
	if err != nil {
		answer.Error = err.Error()
		return answer
	}
	answer.Contacts, answer.Missing = got.Roster.Len(), got.Missing
	before := rosterOf(known.Roster)
	answer.Held = users.Rules{MaxRemoved: cfg.Contacts.MaxRemoved}.Holds(before.Len(), len(roster.Gone(before, got.Roster)), got.Missing)
	for _, c := range roster.Diff(before, got.Roster) {
		answer.Changes = append(answer.Changes, change{string(c.Action), users.ContactOf(c.Item)})
	}
	return answer
}

// rosterOf is a roster as it was before a person was to read it.
func rosterOf(v *users.RosterView) *roster.Roster {
	if v == nil {
		return roster.New(nil)
	}
	var items []roster.Item
	for _, c := range v.Contacts {
		if contact, err := jid.Parse(c.JID); err == nil {
			items = append(items, roster.Item{JID: contact, Name: c.Name, Groups: c.Groups, Subscription: roster.Subscription(c.Subscription), Ask: c.Ask, Approved: c.Approved})
		}
	}
	return roster.New(items)
}

func writeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}

// print writes the answer for a person. What others made up, names, say, is quoted.
func (a userAnswer) print(w io.Writer, now time.Time) {
	line := func(what, format string, args ...any) {
		fmt.Fprintf(w, "%-14s %s\n", what, fmt.Sprintf(format, args...))
	}
	line("user", "%s, says %s", a.View.User, a.Source)
	if r := a.Roster; r == nil {
		line("roster", "none is known")
	} else {
		more := ""
		if r.Validator != "" {
			more += ", validator " + strconv.Quote(r.Validator)
		}
		if r.NotFound {
			more += ", the backend does not know the user"
		}
		if r.Outdated {
			more += ", has changed since, says the backend"
		}
		line("roster", "%s, version %s, fetched %s%s", counted(len(r.Contacts), "contact"), r.Version, ago(r.Fetched, now), more)
	}
	for _, s := range a.Sessions {
		what := []string{"connected"}
		if s.Available {
			what = append(what, "available")
		}
		if s.Interested {
			what = append(what, "is sent pushes")
		}
		line("session", "%s: %s; %s", strconv.Quote(s.Resource), strings.Join(what, ", "), a.told(s.Resource, now))
	}
	for _, r := range a.Resources {
		if !slices.ContainsFunc(a.Sessions, func(s admin.Session) bool { return s.Resource == r.Resource }) {
			line("gone", "%s: %s", strconv.Quote(r.Resource), a.told(r.Resource, now))
		}
	}
	if len(a.Sessions) == 0 {
		line("session", "none")
	}
	if a.Fetching {
		line("fetch", "under way, %d queries wait", a.Queries)
	}
	if len(a.Missed) > 0 {
		line("missed", "some client may show these otherwise: %s", strings.Join(a.Missed, ", "))
	}
	if len(a.InFlight) > 0 {
		line("in flight", "%s", strings.Join(a.InFlight, ", "))
	}
	if m := a.Mark; m != nil {
		next := ""
		if m.Next != nil {
			next = ", is tried again at " + m.Next.Format(time.DateTime) + " UTC"
		}
		line("marked", "%s, since %s%s", m.Why, ago(m.Since, now), next)
	}
	if h := a.Held; h != nil {
		line("held", "%s", inWords(h.Held, now))
		line("", "these would be removed: %s", strings.Join(h.Removes, ", "))
	}
	if e := a.Error; e != nil {
		line("last error", "%s, %s", e.Text, ago(&e.At, now))
	}
	if s := a.ServerRoster; s != nil {
		is := "is not in step"
		if s.InStep {
			is = "is in step"
		}
		line("server roster", "%s, %s, read %s", is, counted(s.Items, "contact"), ago(s.Checked, now))
	}
	if a.Roster != nil {
		for _, c := range a.Roster.Contacts {
			line("contact", "%s", shown(c))
		}
	}
	switch f := a.Fetch; {
	case f == nil:
	case f.Error != "":
		line("backend now", "%s", f.Error)
	default:
		held := ""
		if f.Held {
			held = ", which the removal guard would hold"
		}
		line("backend now", "%s, %s%s", counted(f.Contacts, "contact"), counted(len(f.Changes), "change"), held)
		for _, c := range f.Changes {
			line("", "%-7s %s", c.Action, shown(c.Contact))
		}
	}
}

// told is what a resource was told.
func (a userAnswer) told(resource string, now time.Time) string {
	i := slices.IndexFunc(a.Resources, func(r users.ResourceView) bool { return r.Resource == resource })
	if i < 0 {
		return "never asked for the roster"
	}
	switch r := a.Resources[i]; {
	case r.Doubt && r.Since == nil:
		return "has no roster yet: it is told all"
	case r.Doubt:
		return "may show something old: it is told all"
	case r.Asked != nil:
		return "was told the roster, asked " + ago(r.Asked, now)
	default:
		return "was told the roster"
	}
}

// inWords is what is held of a user.
func inWords(h users.Held, now time.Time) string {
	what := fmt.Sprintf("%d of %d contacts would be removed, says the backend since %s: ", h.Removed, h.Of, ago(&h.Since, now))
	switch {
	case h.Rejected:
		return what + "rejected"
	case h.Until == nil:
		return what + "waits for rosterd approve or rosterd reject"
	default:
		return what + "applied from " + h.Until.Format(time.DateTime) + " UTC on, unless rosterd reject is called"
	}
}

func shown(c users.Contact) string {
	text := fmt.Sprintf("%s %s, %s", c.JID, strconv.Quote(c.Name), c.Subscription)
	if c.Ask {
		text += ", ask"
	}
	if c.Approved {
		text += ", approved"
	}
	for _, group := range c.Groups {
		text += ", " + strconv.Quote(group)
	}
	return text
}

func counted(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// ago is a time, and how long ago it was.
func ago(at *time.Time, now time.Time) string {
	if at == nil {
		return "never"
	}
	return fmt.Sprintf("%s UTC (%s ago)", at.Format(time.DateTime), now.Sub(*at).Round(time.Second))
}
