package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"rosterd/e2e/harness"
	"rosterd/e2e/webdemo"
)

// patience bounds each part of the show.
const patience = 30 * time.Second

// users are who can log in, with their passwords.
var users = map[string]string{"juliet": "balcony", "romeo": "orchard", "mercutio": "queen-mab"}

// stage is all that runs in the demo.
type stage struct {
	prosody *harness.Server
	backend *harness.Backend
	rosterd *harness.Rosterd

	page   *webdemo.Page // nil: Converse.js is not there
	friend *webdemo.Friend
	noPage error // why
}

// setUp starts everything and waits until rosterd serves.
func setUp(ctx context.Context, binary string) (_ *stage, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s := &stage{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if binary, err = filepath.Abs(binary); err != nil {
		return nil, err
	}

	title("Starting")
	if s.prosody, err = harness.StartProsody(ctx, harness.ProsodyOptions{WebSocket: true, ServerOptions: harness.ServerOptions{Users: users, PEP: true}}); err != nil {
		return nil, err
	}
	line("Prosody, the XMPP server of example.org", s.prosody.ClientAddress())
	if s.backend, err = harness.StartBackend(); err != nil {
		return nil, err
	}
	s.fillBackend()
	line("the contacts backend, of three users", s.backend.URL())
	s.rosterd, err = harness.StartRosterd(harness.RosterdOptions{
		Binary: binary, Server: s.prosody, ContactsURL: s.backend.URL(),
		Settings: map[string]any{"contacts.edit_url": s.backend.EditURL()},
	})
	if err != nil {
		return nil, fmt.Errorf("starting rosterd: %w", err)
	}
	if err = s.rosterd.WaitReady(ctx); err != nil {
		return nil, err
	}
	line("rosterd, the component "+s.prosody.Options().Component, s.rosterd.RefreshURL())
	return s, s.openPage(ctx)
}

// openPage serves the page, if Converse.js is there.
func (s *stage) openPage(ctx context.Context) error {
	var converse string
	if converse, s.noPage = webdemo.Converse(ctx); s.noPage != nil {
		return nil
	}
	s.friend = &webdemo.Friend{Options: harness.ClientOptions{Address: s.prosody.ClientAddress(), JID: "romeo@example.org/orchard", Password: users["romeo"]}}
	var err error
	s.page, err = webdemo.Serve(webdemo.Options{
		Converse: converse, WebSocket: s.prosody.WebSocketURL(), Backend: s.backend,
		Refresh: func(ctx context.Context, user string) (harness.RefreshAnswer, error) {
			return s.rosterd.PostRefresh(ctx, fmt.Sprintf("[%q]", user))
		},
		User: "juliet", Host: "example.org", Password: users["juliet"], Friend: "romeo", Visit: s.friend.Visit,
	})
	return err
}

// fillBackend gives the three users their contacts.
func (s *stage) fillBackend() {
	s.backend.Set("juliet", harness.Contacts{
		"romeo@example.org":    {Name: "Romeo", Groups: map[string]bool{"Friends": true}},
		"mercutio@example.org": {Name: "Mercutio", Groups: map[string]bool{"Friends": true, "Verona": true}},
	})
	s.backend.Set("romeo", harness.Contacts{
		"juliet@example.org":   {Name: "Juliet", Groups: map[string]bool{"Capulet": true}},
		"mercutio@example.org": {Name: "Mercutio", Groups: map[string]bool{"Friends": true}},
	})
	s.backend.Set("mercutio", harness.Contacts{
		"romeo@example.org": {Name: "Romeo", Groups: map[string]bool{"Friends": true}},
	})
}

// close ends what has been started.
func (s *stage) close() {
	if s.page != nil {
		s.page.Close()
	}
	if s.friend != nil {
		s.friend.Close()
	}
	if s.rosterd != nil {
		s.rosterd.Close()
	}
	if s.backend != nil {
		s.backend.Close()
	}
	if s.prosody != nil {
		s.prosody.Close()
	}
}

func title(text string) { fmt.Printf("\n%s\n", text) }

func line(what, where string) { fmt.Printf("  %-46s %s\n", what, where) }

// printItem shows a contact as a client would list it.
func printItem(item harness.Item) {
	if item.Subscription == "remove" { // RFC 6121, section 2.5.2
		fmt.Printf("  %-22s removed\n", item.JID)
		return
	}
	fmt.Printf("  %-22s %-18s subscription %-6s groups: %s\n",
		item.JID, item.Name, item.Subscription, strings.Join(item.Groups, ", "))
}
