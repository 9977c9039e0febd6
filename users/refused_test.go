package users

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"rosterd/jid"
	"rosterd/roster"
)

func (w *world) refused(resource string, contacts ...string) {
	var list []jid.JID
	for _, contact := range contacts {
		list = append(list, mustJID(w.t, contact))
	}
	w.Refused(mustJID(w.t, "juliet@example.org/"+resource), list)
}

// Who was refused a change is told what is true of the contacts that it named, and
// nobody else is: whether it uses versions or not, and whether it asked or not.
func TestRefusedSetIsMadeUpFor(t *testing.T) {
	none := ""
	for name, version := range map[string]*string{"with versions": &none, "without": nil} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, Limits{}, func(t *testing.T, w *world) {
				w.backend.set("juliet", "nurse@example.org Angelica", "paris@example.org P")
				w.version = version
				w.ask("garden")
				w.ask("tower")
				w.took()
				before := w.backend.fetches()
				w.refused("tower", "nurse@example.org", "peter@example.org", "paris@example.org/hall")
				w.expectInAnyOrder("push tower changed nurse Angelica", "push tower removed paris ", "push tower removed peter ")
				w.refused("never-asked", "paris@example.org")
				w.expect("push never-asked changed paris P")
				w.refreshJuliet()
				w.expect()
				if n := w.backend.fetches(); n != before+1 {
					t.Errorf("%d fetches", n-before)
				}
			})
		})
	}
}

// The version that the client has names what it shows now, which is not that roster:
// it is given all of it at the next login, though no push reached it.
func TestVersionAfterARefusedSet(t *testing.T) {
	full := mustJID(t, "juliet@example.org/balcony")
	for name, then := range map[string]func(*world){
		"nothing happens":    func(*world) {},
		"the client is gone": nil, // and so is the push, which is settled
		"rosterd is killed":  func(w *world) { w.restart(true) },
		"rosterd is stopped": func(w *world) { w.restart(false) },
	} {
		t.Run(name, func(t *testing.T) {
			inKept(t, func(t *testing.T, w *world) {
				current := younger(w)
				ask := func() (same bool) {
					err := w.Get(full, &current, func(a roster.Answer) []roster.Item { same = a.Same; return nil })
					w.took()
					return same || err != nil
				}
				if !ask() {
					t.Fatal("the version is not known")
				}
				w.set(func() { w.silent = then != nil })
				w.refused("balcony", "romeo@example.org")
				w.expect("push balcony changed romeo Romeo")
				if then != nil {
					then(w)
				}
				w.sessions.Gone(full)
				w.Gone(full)
				w.took()
				if ask() {
					t.Error("the client is told that it has the roster")
				}
			})
		})
	}
}

// As long as nothing is known of a user nothing is said of his contacts; a kill
// changes nothing.
func TestRefusedSetWhileNothingIsKnown(t *testing.T) {
	for _, kill := range []bool{false, true} {
		inKept(t, func(t *testing.T, w *world) {
			w.backend.fail(errors.New("down"))
			w.ask("balcony")
			w.took()
			w.refused("balcony", "peter@example.org")
			w.expect()
			w.backend.set("juliet", "nurse@example.org Angelica")
			if kill {
				w.restart(true)
			}
			w.backend.fail(nil)
			w.Resume("example.org")
			w.expectInAnyOrder("push balcony added nurse Angelica", "push balcony removed peter ")
			if t.Failed() {
				t.Log("kill", kill)
			}
		})
	}
}

// A set is answered before anything was ever fetched of the user.
func TestRefusedSetOfAnUnknownUser(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "nurse@example.org Angelica")
		w.refused("balcony", "nurse@example.org")
		w.expect("push balcony changed nurse Angelica")
	})
}

// While the backend takes its time, what it last said is true.
func TestRefusedSetDuringAFetch(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.login("balcony", "nurse@example.org Angelica")
		w.backend.mu.Lock()
		w.backend.hold = make(chan struct{})
		w.backend.mu.Unlock()
		w.ask("tower")
		w.refused("balcony", "nurse@example.org")
		w.expect("push balcony changed nurse Angelica")
		w.backend.hold <- struct{}{}
		w.expect("reply tower nurse Angelica")
	})
}

// Who names the last known roster has it: no part of it is sent when the backend
// fails.
func TestFailureToAClientThatHasTheRoster(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "nurse@example.org Angelica", "paris@example.org P")
		none := ""
		w.version = &none
		w.ask("tower")
		w.took()
		w.backend.fail(errors.New("down"))
		version := contacts(t, "nurse@example.org Angelica", "paris@example.org P").Version()
		var got roster.Answer
		if err := w.Get(mustJID(t, "juliet@example.org/tower"), &version, func(a roster.Answer) []roster.Item { got = a; return nil }); err != nil {
			t.Fatal(err)
		}
		w.took()
		if !got.Same || got.Err == nil {
			t.Errorf("answered %+v", got)
		}
	})
}

// A client that was told to go on with what it has when nothing was known is pushed
// everything later, but no version: nobody knows what it had.
func TestVersionAfterAFailure(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		var versions []string
		w.Pusher = pusherFunc(func(_ []jid.JID, changes []roster.Change, settled func(roster.Outcome)) error {
			for _, c := range changes {
				versions = append(versions, c.Version)
			}
			settled(roster.Outcome{})
			return nil
		})
		w.Rules.MaxStale = never
		w.Resume("example.org") // it is the session that asked before
		unknown := "of-long-ago"
		w.version = &unknown
		w.login("tower", "nurse@example.org Angelica", "paris@example.org P")
		w.backend.fail(errors.New("down"))
		w.ask("tower")
		w.expect("error tower down")
		w.backend.fail(nil)
		w.refreshJuliet()
		w.took()
		current := contacts(t, "nurse@example.org Angelica", "paris@example.org P").Version()
		if len(versions) != 2 || slices.Contains(versions, current) {
			t.Errorf("pushes name %q", versions)
		}
	})
}

// A user who sends sets faster than the clients are told what is true fills neither
// the queue to the server nor the memory: the others wait, each contact once.
func TestFloodOfRefusedSets(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		pushed := 0
		var settle []func(roster.Outcome)
		w.Pusher = pusherFunc(func(_ []jid.JID, changes []roster.Change, settled func(roster.Outcome)) error {
			pushed += len(changes)
			settle = append(settle, settled)
			return nil
		})
		w.login("balcony", "nurse@example.org Angelica")
		for i := range 3000 {
			w.refused("balcony", fmt.Sprintf("peter%d@example.org", i%1500), "nurse@example.org")
			if i%10 == 0 {
				w.took()
			}
		}
		w.took()
		if pushed < maxCorrecting || pushed > 2*maxCorrecting {
			t.Fatalf("%d contacts at a time", pushed)
		}
		w.Manager.mu.Lock()
		defer w.Manager.mu.Unlock()
		u := w.users[mustJID(t, "juliet@example.org")]
		if n := len(u.refused[mustJID(t, "juliet@example.org/balcony")]); n > maxRefused {
			t.Errorf("%d wait", n)
		}
	})
}

// Those that wait are told when those before are settled, be that in the next
// process.
func TestRefusedSetsThatWait(t *testing.T) {
	for name, then := range map[string]func(*world){
		"settled":            nil,
		"rosterd is killed":  func(w *world) { w.restart(true) },
		"rosterd is stopped": func(w *world) { w.restart(false) },
	} {
		t.Run(name, func(t *testing.T) {
			inKept(t, func(t *testing.T, w *world) {
				w.login("balcony", "nurse@example.org Angelica")
				var settle []func(roster.Outcome)
				pusher := w.Manager.Pusher
				w.Manager.Pusher = pusherFunc(func(_ []jid.JID, _ []roster.Change, settled func(roster.Outcome)) error {
					settle = append(settle, settled)
					return nil
				})
				for i := range maxCorrecting + 1 {
					w.refused("balcony", fmt.Sprintf("peter%d@example.org", i))
					w.took()
				}
				w.refused("balcony", "paris@example.org")
				w.took()
				w.Manager.Pusher = pusher
				if then != nil {
					then(w)
					w.Resume("example.org")
				} else {
					for _, settled := range settle {
						settled(roster.Outcome{})
					}
				}
				time.Sleep(time.Hour) // the removal of so many is to be confirmed
				if got := w.took(); !slices.Contains(got, "push balcony removed paris ") {
					t.Errorf("sent %q", got)
				}
			})
		})
	}
}

// While a user's loop waits for the server, what is said of them does not grow, however often
// it is said: and none of it is lost.
func TestFloodWhileTheLoopWaits(t *testing.T) {
	inWorld(t, Limits{PerUser: 1}, func(t *testing.T, w *world) {
		w.login("balcony", "nurse@example.org Angelica")
		u := w.Manager.users[mustJID(t, "juliet@example.org")]
		if u != nil {
			t.Fatal("the user does not rest")
		}
		entered, leave := make(chan struct{}), make(chan struct{})
		if err := w.Get(mustJID(t, "juliet@example.org/garden"), nil, func(roster.Answer) []roster.Item {
			close(entered)
			<-leave
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		<-entered
		for i := range 20_000 {
			w.refused("balcony", fmt.Sprintf("peter%d@example.org", i), "nurse@example.org")
			w.Undelivered(mustJID(t, "juliet@example.org/balcony"))
			w.Unasked(mustJID(t, "juliet@example.org/tower"))
			w.Gone(mustJID(t, "juliet@example.org/away"))
		}
		w.Manager.mu.Lock()
		u = w.Manager.users[mustJID(t, "juliet@example.org")]
		events, contacts := u.mail.waiting.Load(), len(u.notes.refused[mustJID(t, "juliet@example.org/balcony")])
		w.Manager.mu.Unlock()
		if events > 3 || contacts != maxRefused {
			t.Errorf("%d events, %d contacts wait", events, contacts)
		}
		close(leave)
		time.Sleep(time.Minute)
		sent := w.took()
		for _, want := range []string{"push tower added nurse Angelica", "push balcony changed nurse Angelica", "push balcony removed peter0 "} {
			if !slices.Contains(sent, want) {
				t.Errorf("not sent: %q", want)
			}
		}
	})
}

// What the server has pushed by itself is pushed once more as it is, to all who asked, and to
// nobody else.
func TestPushedByTheServer(t *testing.T) {
	inWorld(t, Limits{}, func(t *testing.T, w *world) {
		w.backend.set("juliet", "nurse@example.org Angelica", "paris@example.org P")
		w.Pushed(mustJID(t, "juliet@example.org"), []jid.JID{mustJID(t, "nurse@example.org")})
		w.expect()
		w.ask("garden")
		w.ask("tower")
		w.took()
		w.Pushed(mustJID(t, "juliet@example.org"), []jid.JID{mustJID(t, "nurse@example.org"), mustJID(t, "peter@example.org")})
		w.expectInAnyOrder("push garden changed nurse Angelica", "push garden removed peter ", "push tower changed nurse Angelica", "push tower removed peter ")
		var many []jid.JID
		for i := range maxRefused + 1 {
			many = append(many, mustJID(t, fmt.Sprintf("many%d@example.org", i)))
		}
		w.Pushed(mustJID(t, "juliet@example.org"), many)
		time.Sleep(10 * time.Second)
		if got := w.took(); len(got) != 4 { // everything to each
			t.Errorf("sent %q", got)
		}
	})
}
