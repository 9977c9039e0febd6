package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"rosterd/e2e/harness"
)

// renamed is what juliet's backend says after the change.
const renamed = `{"romeo@example.org": {"name": "Romeo, my love", "groups": {"Friends": true}},` +
	` "mercutio@example.org": {"name": "Mercutio", "groups": {"Friends": true, "Verona": true}}}`

// show is one run of the main job: a roster at login, a change, its push. The
// client stays logged in; the caller has to Close it.
func (s *stage) show(ctx context.Context) (harness.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	client, err := harness.NewGosrcClient(harness.ClientOptions{
		Address: s.prosody.ClientAddress(), JID: "juliet@example.org/demo", Password: users["juliet"],
	})
	if err != nil {
		return nil, err
	}
	if err = showRoster(ctx, client); err == nil {
		err = s.showPush(ctx, client)
	}
	if err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}

// showRoster is what happens at login.
func showRoster(ctx context.Context, client harness.Client) error {
	title("juliet logs in, with the client of gosrc.io/xmpp, and asks for her roster")
	if err := client.Login(ctx); err != nil {
		return fmt.Errorf("logging in: %w", err)
	}
	items, err := client.Roster(ctx)
	if err != nil {
		return fmt.Errorf("asking for the roster: %w", err)
	}
	if len(items) != 2 {
		return fmt.Errorf("the roster should have 2 items: %+v", items)
	}
	for _, item := range items {
		printItem(item)
	}
	return nil
}

// showPush is what happens when the backend changes something.
func (s *stage) showPush(ctx context.Context, client harness.Client) error {
	title("Her backend gives romeo another name, and reports to rosterd that juliet has changed")
	s.backend.SetBody("juliet", []byte(renamed))
	const report = `["juliet"]`
	fmt.Printf("  POST %s %s\n", s.rosterd.RefreshURL(), report)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var answer harness.RefreshAnswer
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		var err error
		if answer, err = s.rosterd.PostRefresh(ctx, report); err == nil && (answer.Code != 200 || answer.Updated != 1) {
			err = fmt.Errorf("unexpected answer: %+v", answer)
		}
		if err != nil {
			cancel(fmt.Errorf("reporting the change: %w", err))
		}
	}()
	item, err := client.WaitPush(ctx)
	if err != nil {
		return err
	}
	title("A roster push arrives at her client")
	printItem(item)
	if item.JID != "romeo@example.org" || item.Name != "Romeo, my love" {
		return errors.New("this push was not expected")
	}

	<-answered
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	title("rosterd has answered the backend")
	fmt.Printf("  %d  status %s: %s; updated: %d, errors: %d\n",
		answer.Code, answer.Status, answer.Message, answer.Updated, answer.Errors)
	return nil
}

// explain says how to go on by hand.
func (s *stage) explain() {
	if s.page != nil {
		title("Open this page: her contacts in the backend, beside her chat")
		fmt.Printf("  %s\n", s.page.URL)
	} else {
		title("There is no page to look at: " + s.noPage.Error())
	}
	host, port, _ := strings.Cut(s.prosody.ClientAddress(), ":")
	title("Everything stays up until Ctrl-C. Log in with a client of your own, without TLS:")
	line("server and port (connect manually)", host+"  "+port)
	for _, user := range slices.Sorted(maps.Keys(users)) {
		line("user  "+user+"@example.org", "password  "+users[user])
	}
	title("Change juliet's contacts in the backend, and look at them:")
	fmt.Printf("  curl -X PUT %s/contacts/juliet -d '{\"romeo@example.org\": {\"name\": \"Montague\", \"groups\": {\"Rivals\": true}}}'\n",
		s.backend.BaseURL())
	fmt.Printf("  curl %s/contacts/juliet\n", s.backend.BaseURL())
	title("Report it, and see the push arrive, in your client and here:")
	fmt.Printf("  curl -X POST %s -H 'Content-Type: application/json' -d '[\"juliet\"]'\n", s.rosterd.RefreshURL())
	title("Or add, rename or remove a contact in your client: the backend takes it, and what is true then is pushed.")
	title("Look at rosterd's own page, and its metrics:")
	fmt.Printf("  %s\n  curl %s\n\n", s.rosterd.Metrics("/").URL, s.rosterd.Metrics("/metrics").URL)
}

// watch prints the pushes that arrive at juliet's client, until ctx ends or the
// client's connection does.
func watch(ctx context.Context, client harness.Client) error {
	for {
		item, err := client.WaitPush(ctx)
		if err != nil {
			return err
		}
		title("A roster push arrives at juliet's client")
		printItem(item)
	}
}
