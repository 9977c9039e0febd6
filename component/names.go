package component

import (
	"slices"
	"strings"
	"sync/atomic"

	"rosterd/jid"
	"rosterd/roster"
)

// names are the spellings of domains: a server knows each of its own in one, with
// U-labels or with A-labels (RFC 5890), and takes the other for somebody else's.
// Inside rosterd there is the prepared one alone.
type names struct {
	prepared map[string]string                  // of each spelling of a served host
	spelled  map[string]*atomic.Pointer[string] // of the hosts with two spellings: the server's, nil until it has used it
	own      []string                           // spellings of the component's own domain
	ownNow   atomic.Pointer[string]             // that of them which the server takes, or the one to be tried
	foreign  atomic.Bool                        // some host is spelled otherwise than prepared
}

func newNames(domain string, hosts []string) *names {
	n := &names{prepared: make(map[string]string), spelled: make(map[string]*atomic.Pointer[string]), own: spellings(domain)}
	for _, host := range hosts {
		all := spellings(host)
		for _, spelling := range all {
			n.prepared[spelling] = host
		}
		if len(all) > 1 {
			n.spelled[host] = new(atomic.Pointer[string])
		}
	}
	n.ownNow.Store(&n.own[0])
	return n
}

// spellings are those of a prepared domain.
func spellings(domain string) []string {
	if ascii := jid.ASCIIDomain(domain); ascii != domain {
		return []string{domain, ascii}
	}
	return []string{domain}
}

// host is the served host of which a server stamped this domain, and notes how it
// is spelled.
func (n *names) host(domain string) (host string, ok bool) {
	if host, ok = n.prepared[domain]; !ok {
		return "", false
	}
	if p := n.spelled[host]; p != nil {
		if now := p.Load(); now == nil || *now != domain {
			spelling := strings.Clone(domain)
			p.Store(&spelling)
			if spelling != host {
				n.foreign.Store(true)
			}
		}
	}
	return host, true
}

// hostOf is the served host of a user whom a server stamped with this domain.
// COMPAT ejabberd, which stamps that as it was typed at login, too.
func (n *names) hostOf(domain string) (host string, ok bool) {
	if host, ok = n.host(domain); ok {
		return host, true
	}
	host, ok = n.prepared[jid.Nameprep(domain)]
	return host, ok
}

// write is a domain as it is to be sent to the server.
func (n *names) write(domain string) string {
	if p := n.spelled[domain]; p != nil {
		if spelling := p.Load(); spelling != nil {
			return *spelling
		}
	}
	return domain
}

// candidates are the domains that a served host may be to the server: one, if
// that is known.
func (n *names) candidates(host string) []string {
	if p := n.spelled[host]; p != nil && p.Load() == nil {
		return spellings(host)
	}
	return []string{n.write(host)}
}

// known are a served host whose spelling is known, or else all that one may be.
func (n *names) known(hosts []string) []string {
	for _, host := range hosts {
		if all := n.candidates(host); len(all) == 1 {
			return all
		}
	}
	return n.candidates(hosts[0])
}

// domain is the component's own, as the server spells it.
func (n *names) domain() string { return *n.ownNow.Load() }

// isOwn reports whether a domain is the component's own.
func (n *names) isOwn(domain string) bool {
	return domain == n.own[0] || len(n.own) > 1 && domain == n.own[1]
}

// other makes the other spelling of the component's own domain the one to be
// tried, if there is one.
func (n *names) other() bool {
	if len(n.own) == 1 {
		return false
	}
	other := &n.own[0]
	if n.domain() == n.own[0] {
		other = &n.own[1]
	}
	n.ownNow.Store(other)
	return true
}

// item is a contact as it is to be sent to the server.
func (n *names) item(item roster.Item) roster.Item {
	if n.foreign.Load() {
		item.JID = item.JID.Spelled(n.write(item.JID.Domain()))
	}
	return item
}

// changes are changes as they are to be sent to the server.
func (n *names) changes(changes []roster.Change) []roster.Change {
	if !n.foreign.Load() {
		return changes
	}
	changes = slices.Clone(changes)
	for i := range changes {
		changes[i].Item = n.item(changes[i].Item)
	}
	return changes
}

// roster is a roster as it is to be sent to the server, of the same version.
func (n *names) roster(r *roster.Roster) *roster.Roster {
	if !n.foreign.Load() {
		return r
	}
	return r.Spelled(n.item)
}

// read are items that were to be sent as item makes them, as they were.
func (n *names) read(items []roster.Item) []roster.Item {
	if n.foreign.Load() {
		for i := range items {
			if host, ok := n.prepared[items[i].JID.Domain()]; ok {
				items[i].JID = items[i].JID.Spelled(host)
			}
		}
	}
	return items
}
