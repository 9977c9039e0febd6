package component

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"

	"rosterd/jid"
	"rosterd/roster"
)

// names are the spellings of domains: a server knows each of its own either with U-labels
// or with A-labels (RFC 5890). Inside rosterd there is the prepared one alone. It is safe
// for concurrent use.
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

// host returns the served host of which a server stamped this domain, and notes how
// the server spells it.
func (n *names) host(domain string) (host string, served bool) {
	if host, served = n.prepared[domain]; !served {
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

// serves reports whether a prepared domain is that of a served host.
func (n *names) serves(domain string) bool {
	host, known := n.prepared[domain]
	return known && host == domain
}

// write returns a domain as it is to be sent to the server.
func (n *names) write(domain string) string {
	if p := n.spelled[domain]; p != nil {
		if spelling := p.Load(); spelling != nil {
			return *spelling
		}
	}
	return domain
}

// candidates are the spellings that a served host may have: one, if that is known.
func (n *names) candidates(host string) []string {
	if p := n.spelled[host]; p != nil && p.Load() == nil {
		return spellings(host)
	}
	return []string{n.write(host)}
}

// known returns a served host whose spelling is known, or else all that one may be.
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
func (n *names) isOwn(domain string) bool { return slices.Contains(n.own, domain) }

// tryOther switches to the other spelling of the component's domain, if there is one.
func (n *names) tryOther() bool {
	for i := range n.own {
		if n.own[i] != n.domain() {
			n.ownNow.Store(&n.own[i])
			return true
		}
	}
	return false
}

// jid returns a JID whose domain is as the server spells it.
func (n *names) jid(j jid.JID) jid.JID {
	if n.foreign.Load() {
		j = j.Spelled(n.write(j.Domain()))
	}
	return j
}

// item, changes and roster are as they are to be sent to the server.
func (n *names) item(item roster.Item) roster.Item {
	item.JID = n.jid(item.JID)
	return item
}

func (n *names) changes(changes []roster.Change) []roster.Change {
	if n.foreign.Load() {
		changes = slices.Clone(changes)
		for i := range changes {
			changes[i].Item = n.item(changes[i].Item)
		}
	}
	return changes
}

func (n *names) roster(r *roster.Roster) *roster.Roster {
	if n.foreign.Load() {
		return r.Spelled(n.item)
	}
	return r
}

// contact is a contact's JID as it is to be written to the server's own rosters, so that it
// stays the same address.
func (n *names) contact(j jid.JID) jid.JID {
	if n.serves(j.Domain()) {
		return n.jid(j)
	}
	return j.Spelled(jid.StableDomain(j.Domain()))
}

// read undoes item.
func (n *names) read(items []roster.Item) []roster.Item {
	if n.foreign.Load() {
		for i := range items {
			if host, served := n.prepared[items[i].JID.Domain()]; served {
				items[i].JID = items[i].JID.Spelled(host)
			}
		}
	}
	return items
}

// sender is a resource of a served host, which the server stamped as the sender.
type sender struct {
	full jid.JID
	// bare is its user's address as it was stamped; "": as full says.
	bare string
}

var (
	errNobody = errors.New("no resource of a served host")
	// errAmbiguous is for a name that the server might prepare in another way: two of
	// its accounts would be one user here, and somebody would read another's roster.
	errAmbiguous = errors.New("it is not sure whose account this spelling is")
)

// How a host stamps the names of its users.
const (
	stampsPrepared = "prepared" // as it compares them: two stamps are two accounts (Prosody)
	stampsTyped    = "typed"    // as they were typed at login: two stamps may be one account (ejabberd)
)

// sender returns who sent something, by the server's stamp. Unless the server prepared
// the name itself, it counts only if it is sure which account the server would find.
func (c *Component) sender(s *stream, from string) (u sender, err error) {
	bare, resource, full := strings.Cut(from, "/")
	local, domain, user := strings.Cut(bare, "@")
	host, served := c.names.host(domain)
	if !served { // COMPAT ejabberd, which stamps the domain as it was typed at login, too
		host, served = c.names.prepared[jid.Nameprep(domain)]
	}
	if !full || !user || !served {
		return sender{}, errNobody
	}
	asTyped := domain != host
	if asTyped {
		from = local + "@" + host + "/" + resource
	}
	if u.full, err = jid.ParseStamped(strings.Clone(from)); err != nil { // which is kept, and the stanza is not
		if _, err := jid.New(local, host, ""); err != nil {
			return sender{}, errAmbiguous // the server has such a name, and rosterd knows none
		}
		return sender{}, errNobody
	}
	stamp := jid.MatchLocal(local, u.full.Local())
	if exact := stamp.Match == jid.Exact && stamp.Ordered; !exact && !s.isSure(host, stamp) { // it nearly always is
		return sender{}, errAmbiguous
	}
	if local != u.full.Local() || asTyped && domain != c.names.write(host) {
		u.bare = strings.Clone(bare)
	}
	return u, nil
}

// isSure reports whether a host surely means the account of the prepared name by a stamp
// that is not the same.
func (s *stream) isSure(host string, stamp jid.Stamp) bool {
	switch g := s.grants.of(host); g.stamps {
	case stampsPrepared: // else it prepares in another way than rosterd
		return stamp.Match == jid.Exact
	case stampsTyped:
		// Who delegates prepares by nodeprep.
		return stamp.Ordered && (stamp.Match == jid.Agreed || g.delegated())
	default:
		return stamp.Ordered && stamp.Match == jid.Agreed
	}
}

// logAmbiguous logs that somebody is not served, as it is not sure who they are.
func (c *Component) logAmbiguous(from string) {
	c.warn(c.unanswered, "ambiguous", "a user is not served: the server may have another account under another spelling of this name, and whose roster it is would not be sure", "from", short(from))
}

// endOtherSpelling ends a session whose place one of another spelling has taken. COMPAT
// ejabberd, which tells nobody.
func (c *Component) endOtherSpelling(u sender) {
	if c.sessions.Spelled(u.full) != u.bare {
		c.gone(u.full)
	}
}

// address returns a full JID as the server stamped it: a client takes a push from no
// other address (RFC 6121, section 2.1.6).
func (c *Component) address(full jid.JID) string {
	if bare := c.sessions.Spelled(full); bare != "" {
		return bare + "/" + full.Resource()
	}
	return c.names.jid(full).String()
}

// bareOf returns the part of an address before its resource.
func bareOf(address string) string {
	bare, _, _ := strings.Cut(address, "/")
	return bare
}
