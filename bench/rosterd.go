package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"rosterd/internal/freeport"
)

// settings are rosterd's, by their dotted keys. Values are written as JSON,
// which is YAML.
type settings map[string]any

// notThere is the error for a row that needs a key which this rosterd does not
// know yet.
type notThere struct{ key string }

func (e notThere) Error() string { return "not there yet: " + e.key }

// rosterd is one that runs, with the server it is connected to.
type rosterd struct {
	*child
	refresh, metrics string // host:port
	fake             *fake  // nil on a real server
	link             *link
	set              settings // what it was started with
	dir              string
	binary           string
}

// base are the settings of all rows: nothing is limited that a real server's
// users would not notice either.
func base(contactsURL, dir string) settings {
	return settings{
		"xmpp.domain": domain, "xmpp.secret": secret, "xmpp.hosts": []string{host}, "xmpp.presence": "off",
		"xmpp.server_roster": "off", // but where it is measured
		"contacts.url":       contactsURL, "log.level": "warn",
		"state.path":           filepath.Join(dir, "rosterd.db"),
		"limits.queries_burst": 1000000, "limits.queries_per_second": 1000000,
	}
}

// optional are the keys of base that older versions lack, where it makes no
// difference to the measurement.
var optional = map[string]bool{"state.path": true, "limits.queries_burst": true, "limits.queries_per_second": true, "xmpp.max_stanza_bytes": true,
	"xmpp.server_roster": true}

// startRosterd starts rosterd against a fake server of its own.
func (b *bench) startRosterd(ctx context.Context, more settings) (*rosterd, error) {
	r, err := b.prepare(more)
	if err != nil {
		return nil, err
	}
	if r.fake, err = newFake(); err != nil {
		return nil, err
	}
	r.set["xmpp.address"] = r.fake.address()
	if err := r.launch(ctx); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// prepare makes all but the process.
func (b *bench) prepare(more settings) (*rosterd, error) {
	dir, err := os.MkdirTemp(b.dir, "rosterd-")
	if err != nil {
		return nil, err
	}
	ports, err := freeport.Find(2)
	if err != nil {
		return nil, err
	}
	r := &rosterd{dir: dir, binary: b.binary, refresh: freeport.Address(ports[0]), metrics: freeport.Address(ports[1])}
	r.set = base(b.contactsURL(), dir)
	r.set["refresh.listen"], r.set["metrics.listen"] = r.refresh, r.metrics
	maps.Copy(r.set, more)
	maps.DeleteFunc(r.set, func(_ string, value any) bool { return value == nil })
	return r, nil
}

var unknownKey = regexp.MustCompile(`([a-z_.]+): unknown key`)

// launch starts the process and waits until it is connected to the fake server,
// if there is one.
func (r *rosterd) launch(ctx context.Context) error {
	for {
		file := filepath.Join(r.dir, "config.yaml")
		if err := os.WriteFile(file, []byte(r.set.yaml()), 0o600); err != nil {
			return err
		}
		var err error
		if r.child, err = start(r.dir, r.binary, "--config", file); err != nil {
			return err
		}
		if r.fake != nil {
			r.link, err = r.fake.accept(ctx, r.child)
		} else {
			err = r.listening(ctx)
		}
		if err == nil {
			return nil
		}
		unknown := unknownKey.FindStringSubmatch(r.errors.text())
		if unknown == nil {
			return err
		}
		if !r.set.drop(unknown[1]) {
			return notThere{unknown[1]}
		}
	}
}

// drop leaves a key, or a section, out. It reports whether that may be.
func (s settings) drop(key string) bool {
	dropped := false
	for _, k := range slices.Collect(maps.Keys(s)) {
		if k != key && !strings.HasPrefix(k, key+".") {
			continue
		}
		if !optional[k] {
			return false
		}
		delete(s, k)
		dropped = true
	}
	return dropped
}

func (s settings) yaml() string {
	sections := map[string][]string{}
	for key, value := range s {
		section, name, _ := strings.Cut(key, ".")
		data, err := json.Marshal(value)
		if err != nil {
			panic(err) // our own values
		}
		sections[section] = append(sections[section], fmt.Sprintf("  %s: %s\n", name, data))
	}
	var b strings.Builder
	for section, lines := range sections {
		fmt.Fprintf(&b, "%s:\n%s", section, strings.Join(lines, ""))
	}
	return b.String()
}

// listening waits until the refresh endpoint takes connections.
func (r *rosterd) listening(ctx context.Context) error {
	return retry(ctx, func() error {
		select {
		case <-r.done:
			return final{r.ended()}
		default:
		}
		conn, err := net.Dial("tcp", r.refresh)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// close ends rosterd, and its server.
func (r *rosterd) close() {
	if r.child != nil {
		r.stop()
	}
	if r.fake != nil {
		r.fake.close()
	}
	_ = os.RemoveAll(r.dir)
}
