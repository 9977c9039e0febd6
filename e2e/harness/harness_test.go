package harness

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"rosterd/internal/bubble"
)

func TestFeed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		f := newFeed[int]()
		go func() {
			for i := range 10 {
				time.Sleep(time.Second) // of the bubble's clock
				f.add(i)
			}
		}()
		v, next, err := f.wait(t.Context(), 0, func(v int) bool { return v == 3 })
		if v != 3 || next != 4 || err != nil {
			t.Errorf("wait: %d, %d, %v", v, next, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, next, err = f.wait(ctx, 2, func(v int) bool { return v == 1 }); !errors.Is(err, context.DeadlineExceeded) || next != 10 {
			t.Errorf("wait for what is past: %d, %v", next, err)
		}
		if values, next := f.since(8); fmt.Sprint(values, next) != "[8 9] 10" {
			t.Errorf("since: %v, %d", values, next)
		}
		f.end()
		if _, _, err = f.wait(t.Context(), 0, func(int) bool { return false }); !errors.Is(err, errEnded) {
			t.Errorf("wait at the end: %v", err)
		}
		for range feedLimit {
			f.add(100)
		}
		if values, next := f.since(0); len(values) != feedLimit || next != feedLimit+10 {
			t.Errorf("%d values are kept, the next is %d", len(values), next)
		}
	})
}

func TestWireParse(t *testing.T) {
	stanzas := []string{
		`<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms></stream:features>`,
		`<iq type='set' id='1' to='juliet@example.org/a'><query xmlns='jabber:iq:roster'><item jid='a@b'/></query></iq>`,
		`<presence from='a@b/c'/>`,
		`<message><body>&lt;iq/&gt;</body></message>`,
	}
	header := `<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='` + nsStream + `' id='x'>`
	w := &wire{arrived: newFeed[Stanza]()}
	err := w.parse(strings.NewReader(header + stanzas[0] + header + stanzas[1] + " \n" + stanzas[2] + stanzas[3] + "</stream:stream>"))
	if err == nil {
		t.Error("the end of the stream is no error")
	}
	got, _ := w.arrived.since(0)
	if len(got) != len(stanzas) {
		t.Fatalf("stanzas: %+v", got)
	}
	for i, stanza := range got {
		if stanza.XML != stanzas[i] {
			t.Errorf("stanza %d: %s", i, stanza.XML)
		}
	}
	want := Stanza{Name: "iq", Type: "set", ID: "1", To: "juliet@example.org/a", Payload: xml.Name{Space: nsRoster, Local: "query"}, XML: stanzas[1]}
	if got[1] != want {
		t.Errorf("got %+v", got[1])
	}
}

func TestProcess(t *testing.T) {
	ctx := t.Context()
	p, err := startProcess(exec.Command("sh", "-c", `trap 'echo ended; printf tail; exit 3' TERM; echo begun >&2; while :; do sleep 0.01; done`))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.log.wait(ctx, 0, func(line string) bool { return line == "begun" }); err != nil {
		t.Error(err)
	}
	if err := p.stop(ctx); err != nil || p.running() {
		t.Errorf("stop: %v", err)
	}
	if p.text() != "begun\nended\ntail" || p.cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("log %q, exit code %d", p.text(), p.cmd.ProcessState.ExitCode())
	}

	// A process that does not listen is killed.
	p, err = startProcess(exec.Command("sh", "-c", `trap '' TERM; echo begun; while :; do sleep 0.01; done`))
	if err != nil {
		t.Fatal(err)
	}
	_, _, _ = p.log.wait(ctx, 0, func(line string) bool { return line == "begun" })
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if err := p.stop(short); err == nil || p.running() {
		t.Errorf("stop: %v, running: %v", err, p.running())
	}
	if _, err := startProcess(exec.Command("/does/not/exist")); err == nil {
		t.Error("started what does not exist")
	}
}

// recordingTB sees what Require does to a test.
type recordingTB struct{ skipped, failed string }

func (tb *recordingTB) Helper()           {}
func (tb *recordingTB) Skip(args ...any)  { tb.skipped = fmt.Sprint(args...) }
func (tb *recordingTB) Fatal(args ...any) { tb.failed = fmt.Sprint(args...) }

func TestRequire(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // neither prosody nor erl there
	t.Setenv("E2E_SUITE", "")
	for _, required := range []string{"", "required"} {
		t.Setenv("E2E", required)
		var tb recordingTB
		Require(t.Context(), &tb)
		line := tb.skipped + tb.failed
		if !strings.HasPrefix(line, "not installed: prosody") || strings.Contains(line, "\n") {
			t.Errorf("said %q", line)
		}
		if (tb.failed != "") != (required != "") {
			t.Errorf("E2E=%q: %+v", required, tb)
		}
	}
}

func TestConfigYAML(t *testing.T) {
	got := configYAML(map[string]any{"xmpp.hosts": []string{"a", "b"}, "xmpp.secret": `"`})
	if want := "xmpp:\n  hosts: [\"a\",\"b\"]\n  secret: \"\\\"\"\n"; got != want {
		t.Errorf("got %s", got)
	}
}

func TestMain(m *testing.M) {
	if os.Getenv("HARNESS_FAKE_ROSTERD") != "" {
		fakeRosterd()
	}
	os.Exit(m.Run())
}
