package serverroster

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

const (
	callTimeout = 10 * time.Second // of one command
	proveAgain  = 30 * time.Second // while it does not work
	proveSoon   = time.Second      // at least, after something failed

	// How much of an answer is read: a roster, and anything else.
	maxRosterBody = 32 << 20
	maxOtherBody  = 4 << 10
)

// EjabberdOptions say where ejabberd's HTTP API is, and for whose users it is used.
type EjabberdOptions struct {
	URL    string        // http or https; "/" and a command's name are added
	Login  EjabberdLogin // see [Ejabberd.Renew]
	Hosts  []string      // prepared domains
	Logger *slog.Logger

	// Confirm returns when ejabberd may be called, and fails if it may not be any more. It is
	// called before each call; nil: nobody is asked.
	Confirm func(ctx context.Context) error

	// Changed is called when what [Ejabberd.State] says of a host has changed, by whoever
	// calls [Ejabberd.Prove] or Run. It does not block. May be nil.
	Changed func(host string)
}

// EjabberdLogin shows ejabberd who calls: by a token, or a user (a JID) and their
// password, or by nothing if the address is enough.
type EjabberdLogin struct{ Token, User, Password string }

// Ejabberd keeps rosters by ejabberd's HTTP API (mod_http_api): the commands get_roster,
// add_rosteritem and delete_rosteritem of mod_admin_extra. It is safe for concurrent use.
//
// Before it answers, ejabberd pushes what was written to all of the user's clients, whether
// it differs or not, and sends the user's presence to a contact who may see it from now on,
// or no more; also while the namespace is delegated. It does not fetch the contact's: for
// that, there is send_stanza, if it is permitted. It keeps a roster for every name, whether
// there is such an account or not.
//
// No error, and nothing that is logged, has anything of an answer, a login or the URL.
type Ejabberd struct {
	options   EjabberdOptions
	transport *http.Transport
	login     atomic.Pointer[EjabberdLogin]
	groupList atomic.Bool   // groups are a list: see prove
	doubts    chan struct{} // something failed: Run proves again; holds 1

	timeout, again, soon time.Duration // as the constants, but in tests

	mu     sync.Mutex
	states map[string]apiState // guarded by mu: by host
}

// apiState is what was proven of a host.
type apiState struct {
	spelling string // as ejabberd has the host; "": it does not work
	why      string // it does not
	probes   bool   // send_stanza is permitted
}

// NewEjabberd makes an Ejabberd that nothing is known of yet. It connects to nobody before
// Run or Prove. It fails if the URL is none.
func NewEjabberd(o EjabberdOptions) (*Ejabberd, error) {
	if u, err := url.Parse(o.URL); err != nil || u.Host == "" {
		return nil, errors.New("the URL of ejabberd's API is not valid")
	}
	e := &Ejabberd{
		options: o,
		transport: &http.Transport{
			// No proxy: those of the environment are for the backend. The component connects to
			// ejabberd without one, too, and a login is nothing for others to see.
			MaxIdleConnsPerHost: 8, IdleConnTimeout: 30 * time.Second,
			TLSHandshakeTimeout: callTimeout, MaxResponseHeaderBytes: 64 << 10, DisableCompression: true,
			DialContext: (&net.Dialer{Timeout: callTimeout}).DialContext,
		},
		doubts: make(chan struct{}, 1), timeout: callTimeout, again: proveAgain, soon: proveSoon,
		states: make(map[string]apiState),
	}
	e.groupList.Store(true)
	e.login.Store(&o.Login)
	for _, host := range o.Hosts {
		e.states[host] = apiState{why: "not tried yet"}
	}
	return e, nil
}

// Close closes the connections that wait for another call.
func (e *Ejabberd) Close() { e.transport.CloseIdleConnections() }

// Renew has the next call made with another login, and has Run prove again.
func (e *Ejabberd) Renew(login EjabberdLogin) {
	e.login.Store(&login)
	e.Doubt()
}

// Doubt has Run prove soon that the API works: something happened to ejabberd.
func (e *Ejabberd) Doubt() {
	select {
	case e.doubts <- struct{}{}:
	default:
	}
}

// State says whether the API was proven to work for a host's users, or why not.
func (e *Ejabberd) State(host string) (works bool, why string) {
	s := e.state(host)
	return s.spelling != "", s.why
}

// Probes reports whether contacts can be asked for presence in the names of a host's users:
// whether send_stanza is permitted.
func (e *Ejabberd) Probes(host string) bool { return e.state(host).probes }

func (e *Ejabberd) state(host string) apiState {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.states[host]
}

// Way is the way to the rosters of a host's users; nil while it does not work.
func (e *Ejabberd) Way(host string) Way {
	if works, _ := e.State(host); !works {
		return nil
	}
	return ejabberdWay{e}
}

// Run proves that the API works: at once, every 30 s while it does not, and after
// something failed. It ends with ctx, and closes e.
func (e *Ejabberd) Run(ctx context.Context) {
	defer e.Close()
	for {
		e.Prove(ctx)
		var again <-chan time.Time
		for _, host := range e.options.Hosts {
			if works, _ := e.State(host); !works {
				again = time.After(e.again)
			}
		}
		select {
		case <-again:
			continue
		case <-e.doubts:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(e.soon):
		case <-ctx.Done():
			return
		}
	}
}

// Prove finds out whether the API works for each host, and changes nobody's roster for it.
func (e *Ejabberd) Prove(ctx context.Context) {
	var down error // nobody answers: the next one is not tried
	for _, host := range e.options.Hosts {
		err := down
		var spelling string
		if err == nil {
			spelling, err = e.prove(ctx, host)
		}
		if ctx.Err() != nil {
			return
		}
		now := apiState{spelling: spelling, probes: err == nil && e.sends(ctx)}
		if err != nil {
			now.why = err.Error()
		}
		if fault, ok := errors.AsType[*apiError](err); ok && fault.status == 0 {
			down = err
		}
		e.mu.Lock()
		before := e.states[host]
		e.states[host] = now
		e.mu.Unlock()
		if before == now {
			continue
		}
		if err != nil {
			e.options.Logger.Warn("ejabberd's API does not work", "host", host, "error", now.why)
		} else {
			e.options.Logger.Info("ejabberd's API works", "host", host, "probes", now.probes)
		}
		if e.options.Changed != nil {
			e.options.Changed(host)
		}
	}
}

// nobody is a localpart that no server takes: ejabberd refuses it only after it has looked
// whether the caller may use the command, and whether it knows the arguments.
const nobody = "@"

// foreign is the domain of a contact who cannot be (RFC 6761, section 6.4).
const foreign = "invalid"

// prove finds out how ejabberd spells a host, and whether the commands are permitted.
//
// COMPAT get_roster is an empty list for users of a domain that ejabberd does not have, and
// to write there is "internal_error". Before 25, a host that is set up with A-labels has no
// other name.
func (e *Ejabberd) prove(ctx context.Context, host string) (spelling string, err error) {
	for _, spelling = range slices.Compact([]string{host, jid.ASCIIDomain(host)}) {
		err = e.tryWriting(ctx, spelling)
		if !isStatus(err, http.StatusInternalServerError) {
			break
		}
	}
	if isStatus(err, http.StatusInternalServerError) {
		return "", errors.New("ejabberd does not have this domain, or its mod_roster does not work (delete_rosteritem: 500)")
	}
	if err == nil {
		_, err = e.get(ctx, "", spelling)
	}
	if err != nil {
		return "", err
	}
	// COMPAT from 24.02 on, groups is a list. Before, and with an older default_version of
	// mod_http_api, group is text in which ';' separates.
	list := true
	err = e.add(ctx, nobody, spelling, "", foreign, roster.Item{}, list)
	if isMessage(err, "argument") {
		list = false
		err = e.add(ctx, nobody, spelling, "", foreign, roster.Item{}, list)
	}
	switch {
	case isMessage(err, "'localuser'"):
		e.groupList.Store(list)
		return spelling, nil
	case err == nil:
		err = errors.New("ejabberd's API takes what it cannot (add_rosteritem)")
	}
	return "", err
}

// tryWriting deletes an item that is not there from the roster of a host itself.
func (e *Ejabberd) tryWriting(ctx context.Context, host string) error {
	return e.do(ctx, "delete_rosteritem", map[string]any{"localuser": "", "localhost": host, "user": "", "host": foreign})
}

// sends finds out whether send_stanza is permitted, with an address that none is.
func (e *Ejabberd) sends(ctx context.Context) bool {
	return isMessage(e.sendProbe(ctx, nobody, nobody), "malformed")
}

// sendProbe has ejabberd take a presence probe as sent by from. It is answered by to's
// resources, to those of from, if to lets from see them (RFC 6121, section 4.3.2).
func (e *Ejabberd) sendProbe(ctx context.Context, from, to string) error {
	return e.do(ctx, "send_stanza", map[string]any{"from": from, "to": to, "stanza": "<presence type='probe'/>"})
}

// Probe implements [prober].
func (w ejabberdWay) Probe(ctx context.Context, user, contact jid.JID) (permitted bool, err error) {
	if !w.e.Probes(user.Domain()) {
		return false, nil
	}
	return true, w.e.failed(ctx, w.e.sendProbe(ctx, w.e.written(user), w.e.written(contact)))
}

// written is an address as ejabberd has it.
func (e *Ejabberd) written(j jid.JID) string {
	if j.Local() == "" {
		return e.spell(j.Domain())
	}
	return j.Local() + "@" + e.spell(j.Domain())
}

// ejabberdWay is the [Way] of [Ejabberd].
type ejabberdWay struct{ e *Ejabberd }

// Get implements [Way]. An item of a contact whose JID this project does not take is left
// out, it cannot be written either.
func (w ejabberdWay) Get(ctx context.Context, user jid.JID) (*roster.Roster, error) {
	r, err := w.e.get(ctx, user.Local(), w.e.spell(user.Domain()))
	if isMessage(err, "'user'") {
		return nil, ErrNoAccount
	}
	return r, w.e.failed(ctx, err)
}

// itemTries is how often an item is written with which ejabberd has a fault of its own, though
// it can write others.
const itemTries = 4

// Set implements [Way]. An item with which ejabberd has a fault of its own each time is
// refused as faulty, if ejabberd can write at all: the items behind it do not wait for it.
func (w ejabberdWay) Set(ctx context.Context, user jid.JID, changes []roster.Change, written func(roster.Change)) error {
	var refused RefusedError
	for _, c := range changes {
		err := w.set(ctx, user, c)
		for n := 1; n < itemTries && w.isFaulty(ctx, user, err); n++ {
			err = w.set(ctx, user, c)
		}
		why := ""
		switch {
		case err == nil, isMessage(err, "'user'") && c.Action == roster.Removed: // it is not there
			written(c)
			continue
		case isMessage(err, "'localuser'"):
			return ErrNoAccount
		case isMessage(err, "'user'"):
			why = "ejabberd does not take the JID"
		case w.isFaulty(ctx, user, err):
			why, refused.Faulty = err.Error(), true
		default:
			return w.e.failed(ctx, err)
		}
		refused.Contacts = append(refused.Contacts, c.Item.JID)
		refused.Why = cmp.Or(refused.Why, why)
	}
	if refused.Contacts != nil {
		return &refused
	}
	return nil
}

// isFaulty reports whether ejabberd had a fault of its own with an item, and can write.
func (w ejabberdWay) isFaulty(ctx context.Context, user jid.JID, err error) bool {
	return isStatus(err, http.StatusInternalServerError) && w.e.tryWriting(ctx, w.e.spell(user.Domain())) == nil
}

// set writes one change.
//
// COMPAT delete_rosteritem sends unsubscribe and unsubscribed to a contact with a
// subscription, which change the contact's own roster. It does not after none: so whose
// item is removed is first one without a subscription, which is pushed, too. It keeps its
// name and groups, so that clients do not show it otherwise for that moment.
func (w ejabberdWay) set(ctx context.Context, user jid.JID, c roster.Change) error {
	local, host := user.Local(), w.e.spell(user.Domain())
	contact, contactHost := c.Item.JID.Local(), w.e.spell(c.Item.JID.Domain())
	var err error
	if item := c.Item; c.Action != roster.Removed || item.Subscription != roster.SubscriptionNone {
		if c.Action == roster.Removed {
			item.Subscription = roster.SubscriptionNone
		}
		err = w.e.add(ctx, local, host, contact, contactHost, item, w.e.groupList.Load())
	}
	if err == nil && c.Action == roster.Removed {
		err = w.e.do(ctx, "delete_rosteritem", map[string]any{"localuser": local, "localhost": host, "user": contact, "host": contactHost})
	}
	return err
}

// failed is how a call failed: Run has a look at it, unless the caller's time was up.
func (e *Ejabberd) failed(ctx context.Context, err error) error {
	if err != nil && ctx.Err() == nil {
		e.Doubt()
	}
	return err
}

// spell is a domain as ejabberd has it, or takes it for what it is.
func (e *Ejabberd) spell(domain string) string {
	return cmp.Or(e.state(domain).spelling, jid.StableDomain(domain))
}

// add calls add_rosteritem, which replaces the item if there is one.
//
// COMPAT before 24.02 a group whose name has a ';' becomes several, or fewer: what Get then
// finds differs from what was written.
func (e *Ejabberd) add(ctx context.Context, local, host, contact, contactHost string, item roster.Item, list bool) error {
	args := map[string]any{"localuser": local, "localhost": host, "user": contact, "host": contactHost,
		"nick": item.Name, "subs": cmp.Or(item.Subscription, roster.SubscriptionNone)}
	if list {
		args["groups"] = append([]string{}, item.Groups...)
	} else {
		args["group"] = strings.Join(item.Groups, ";")
	}
	return e.do(ctx, "add_rosteritem", args)
}

// get calls get_roster.
//
// COMPAT before 23.10 a contact comes once for each of their groups, in group, with "" if
// there is none; then groups are a list.
func (e *Ejabberd) get(ctx context.Context, local, host string) (*roster.Roster, error) {
	body, err := e.call(ctx, "get_roster", map[string]any{"user": local, "host": host}, maxRosterBody)
	if err != nil {
		return nil, err
	}
	var contacts []*struct {
		JID          string   `json:"jid"`
		Nick         string   `json:"nick"`
		Subscription string   `json:"subscription"`
		Group        string   `json:"group"`
		Groups       []string `json:"groups"`
	}
	garbage := &apiError{status: http.StatusOK, text: "get_roster: the answer is no roster"}
	if json.Unmarshal(body, &contacts) != nil || contacts == nil { // null
		return nil, garbage
	}
	var items []roster.Item
	places := make(map[jid.JID]int, len(contacts))
	for _, c := range contacts {
		if c == nil || c.JID == "" || c.Subscription == "" {
			return nil, garbage
		}
		contact, err := jid.Parse(c.JID)
		if err != nil || !contact.IsBare() {
			continue
		}
		i, again := places[contact]
		if !again {
			i = len(items)
			places[contact] = i
			items = append(items, roster.Item{JID: contact, Name: roster.CleanText(c.Nick), Subscription: roster.Subscription(c.Subscription)})
		}
		items[i].Groups = append(items[i].Groups, append(c.Groups, c.Group)...)
	}
	for i := range items {
		groups := items[i].Groups
		for j := range groups {
			groups[j] = roster.CleanText(groups[j])
		}
		slices.Sort(groups)
		items[i].Groups = slices.DeleteFunc(slices.Compact(groups), func(group string) bool { return group == "" })
		if !items[i].Subscription.Valid() {
			items[i].Subscription = roster.SubscriptionNone
		}
	}
	return roster.New(items), nil
}

// do calls a command whose answer is 0 if it is done.
func (e *Ejabberd) do(ctx context.Context, command string, args map[string]any) error {
	body, err := e.call(ctx, command, args, maxOtherBody)
	switch {
	case err != nil:
		return err
	case string(body) == "0":
		return nil
	case string(body) == "1": // COMPAT what the database refuses, or a database that is down
		return &apiError{status: http.StatusInternalServerError, text: command + ": ejabberd could not store it"}
	}
	return &apiError{status: http.StatusOK, text: command + ": the answer is not ejabberd's"}
}

// apiError is a call that failed.
type apiError struct {
	status  int    // of the answer; 0: there was none
	message string // of ejabberd, if the status is 400; not to be shown
	text    string
	cause   error // the context's, or nil
}

func (e *apiError) Error() string { return e.text }
func (e *apiError) Unwrap() error { return e.cause }

func isStatus(err error, status int) bool {
	fault := (*apiError)(nil)
	return errors.As(err, &fault) && fault.status == status
}

// isMessage reports whether ejabberd refused what was asked with a text that has this part.
func isMessage(err error, part string) bool {
	fault := (*apiError)(nil)
	return errors.As(err, &fault) && strings.Contains(fault.message, part)
}

// call calls a command and returns the body of an answer 200, of at most limit bytes.
// Redirects are not followed.
func (e *Ejabberd) call(ctx context.Context, command string, args map[string]any, limit int64) ([]byte, error) {
	data, err := json.Marshal(args)
	if err != nil {
		return nil, err // strings: cannot be
	}
	calling, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	base, _ := url.Parse(e.options.URL)
	req, err := http.NewRequestWithContext(calling, http.MethodPost, base.JoinPath(command).String(), bytes.NewReader(data))
	if err != nil {
		return nil, &apiError{text: "the URL of ejabberd's API is not valid"}
	}
	req.Header.Set("Content-Type", "application/json")
	// Every command may be called twice: net/http does so if a connection that it kept
	// has ended. It is not sent.
	req.Header["Idempotency-Key"] = nil
	switch login := e.login.Load(); {
	case login.Token != "":
		req.Header.Set("Authorization", "Bearer "+login.Token)
	case login.User != "":
		req.SetBasicAuth(login.User, login.Password)
	}
	if e.options.Confirm != nil {
		if err := e.options.Confirm(ctx); err != nil {
			return nil, &apiError{text: command + ": " + err.Error(), cause: ctx.Err()}
		}
	}
	resp, err := e.transport.RoundTrip(req)
	if err != nil {
		return nil, noAnswer(ctx, calling, command, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		limit = maxOtherBody
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, noAnswer(ctx, calling, command, err)
	case resp.StatusCode != http.StatusOK:
		return nil, refusal(command, resp.StatusCode, body)
	case int64(len(body)) > limit:
		return nil, &apiError{status: http.StatusOK, text: fmt.Sprintf("%s: the answer is larger than %d bytes", command, limit)}
	}
	return bytes.TrimSpace(body), nil
}

// refusal is an answer with another status than 200.
func refusal(command string, status int, body []byte) error {
	e := &apiError{status: status}
	switch status {
	case http.StatusBadRequest:
		// COMPAT 400 is also what ejabberd says of a command that it does not know.
		if json.Unmarshal(body, &e.message) == nil && e.message == command {
			e.text = "400: ejabberd does not know it, mod_admin_extra is not loaded"
		} else {
			e.text = "400: ejabberd does not take what was asked"
		}
	case http.StatusUnauthorized:
		e.text = "401: ejabberd does not take the token, or the user and their password"
	case http.StatusForbidden:
		// COMPAT from 26.07 on, whoever logs in needs the access rule configure, and may
		// write contacts of ejabberd's own domains alone.
		e.text = "403: api_permissions does not permit it (from 26.07 on: by address alone)"
	case http.StatusNotFound:
		e.text = "404: the URL is not that of mod_http_api, or mod_admin_extra is not loaded"
	default:
		e.text = fmt.Sprint(status)
	}
	e.text = command + ": " + e.text
	return e
}

// noAnswer is why there was no answer. It has nothing of err, which may quote what came.
func noAnswer(ctx, calling context.Context, command string, err error) error {
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	e := &apiError{cause: ctx.Err()}
	switch {
	case e.cause != nil:
		e.text = e.cause.Error()
	case calling.Err() != nil:
		e.text = fmt.Sprintf("no answer within %v", callTimeout)
	case errors.Is(err, syscall.ECONNREFUSED):
		e.text = "connection refused"
	case errors.As(err, &dns):
		e.text = "host name lookup failed"
	case errors.As(err, &cert):
		e.text = "the certificate does not prove the host"
	default:
		e.text = "the connection failed"
	}
	e.text = command + ": " + e.text
	return e
}
