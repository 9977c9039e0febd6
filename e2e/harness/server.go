package harness

import (
	"context"
	"slices"
	"strings"
)

// Server is a throw-away XMPP server without TLS, started already. Its methods
// are not for concurrent use, except for the addresses and the log.
type Server interface {
	ClientAddress() string    // host:port where clients log in
	ComponentAddress() string // host:port where the component connects
	Options() ServerOptions   // with their defaults

	// Start starts a server that was stopped or killed, with the ports and the
	// data it had, and waits until it takes connections.
	Start(ctx context.Context) error
	Stop(ctx context.Context) error // in order; killed when ctx ends
	Kill()                          // at once, without closing a stream
	Restart(ctx context.Context) error
	Close() // ends it if it runs, and deletes its files

	Log() string // since its last start
	WaitLog(ctx context.Context, text string) error
}

// ServerOptions are what the servers have in common. The zero value serves
// example.org without users, and grants the component contacts.example.org all
// that rosterd asks for.
type ServerOptions struct {
	Host       string   // default example.org
	ExtraHosts []string // further hosts
	Component  string   // default contacts.HOST
	Secret     string   // of the component, default "component secret"

	// Users maps localparts of Host, or bare JIDs of any host, to passwords.
	Users map[string]string

	Grants         Grants            // of every host
	HostGrants     map[string]Grants // of the hosts that differ
	AnyFromAddress bool              // the component may send in the name of any address
}

// Grants are what a host does not let the component do. The zero value lets it
// do everything.
type Grants struct {
	NoDelegation  bool // do not delegate jabber:iq:roster (XEP-0355)
	NoPrivilegeIQ bool // do not allow privileged IQs (XEP-0356, section 6); ejabberd knows none
	NoPresence    bool // do not forward presence (XEP-0356, section 7)

	// Plain is a host that knows neither XEP: it announces nothing at all.
	Plain bool
}

func (o *ServerOptions) setDefaults() {
	if o.Host == "" {
		o.Host = "example.org"
	}
	if o.Component == "" {
		o.Component = "contacts." + o.Host
	}
	if o.Secret == "" {
		o.Secret = "component secret"
	}
}

// Hosts are the domains whose users the component serves.
func (o ServerOptions) Hosts() []string {
	return append([]string{o.Host}, o.ExtraHosts...)
}

// grants are those of a host.
func (o ServerOptions) grants(host string) Grants {
	if g, differs := o.HostGrants[host]; differs {
		return g
	}
	return o.Grants
}

// account is a user who can log in.
type account struct{ local, host, password string }

// accounts are Users, in a fixed order.
func (o ServerOptions) accounts() []account {
	var accounts []account
	for user, password := range o.Users {
		local, host, isJID := strings.Cut(user, "@")
		if !isJID {
			host = o.Host
		}
		accounts = append(accounts, account{local, host, password})
	}
	slices.SortFunc(accounts, func(a, b account) int {
		return strings.Compare(a.local+"@"+a.host, b.local+"@"+b.host)
	})
	return accounts
}

// containsAny says whether a line contains one of the texts.
func containsAny(texts ...string) func(string) bool {
	return func(line string) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(line, text) })
	}
}
