package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"
)

// options are those of the command line.
type options struct {
	binary, server, peer string
	quick                bool
	runs                 int
	imported             int // 0: a default
	only                 []string
}

// bench is what all parts of a measurement share. It is for one goroutine.
type bench struct {
	options
	board
	dir     string // of all files
	backend *child
	address string // of the backend
	http    *http.Client
}

// part is a part of the measurement, which is run several times.
type part struct {
	name string
	run  func(context.Context) error
	long time.Duration // that it may take, once; 0: stepTime
	once bool          // it takes so long that it is run once
}

// stepTime is how long a part may take, once.
const stepTime = 10 * time.Minute

func measure(ctx context.Context, o options) error {
	raiseFiles()
	if o.runs == 0 {
		switch {
		case o.quick:
			o.runs = 1
		case o.server != "":
			o.runs = 3
		default:
			o.runs = 5
		}
	}
	b := &bench{options: o, http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}}
	var err error
	if b.binary, err = filepath.Abs(o.binary); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if b.backend, err = self("backend"); err != nil {
		return err
	}
	defer b.backend.stop()
	if b.address, err = b.backend.line(); err != nil {
		return err
	}
	parts, err := b.parts()
	if err != nil {
		return err
	}
	err = b.runAll(ctx, parts)
	fmt.Printf("%s, %d processors, %s, %d interleaved runs, medians", machine(), runtime.NumCPU(), runtime.Version(), b.runs)
	if b.quick {
		fmt.Print("; quick: the numbers are small, and so is what they prove")
	}
	fmt.Print("\n\n")
	b.print(os.Stdout)
	return err
}

// parts are those that were asked for. Only these have rows.
func (b *bench) parts() ([]part, error) {
	all := map[string]func() part{}
	asked := map[string]bool{} // parts that are measured only if they are named
	names := []string{"queries", "refreshes", "growth", "relays", "pair"}
	switch b.server {
	case "":
		all["queries"], all["refreshes"], all["growth"], all["relays"], all["pair"] = b.queries, b.refreshes, b.growth, b.relays, b.pair
	case "prosody", "ejabberd":
		names = nil
		for i, v := range variants[b.server] {
			name := strconv.Itoa(i + 1)
			names = append(names, name)
			all[name] = func() part { return b.onServer(name, v) }
		}
		names, all["tags"], all["takeover"] = append(names, "tags", "takeover"), b.tags, b.takeover
		for i, v := range variants[b.server] {
			name := "rosters"
			if i > 0 {
				name += strconv.Itoa(i + 1)
				asked[name] = true
			}
			names = append(names, name)
			all[name] = func() part { return b.serverRosters(name, v) }
		}
	default:
		return nil, fmt.Errorf("-server: %q is neither prosody nor ejabberd", b.server)
	}
	var parts []part
	for _, name := range names {
		if b.only == nil && !asked[name] || slices.Contains(b.only, name) {
			parts = append(parts, all[name]())
		}
	}
	return parts, nil
}

// runAll runs all parts in turn, several times. A part that fails is left out
// from then on.
func (b *bench) runAll(ctx context.Context, parts []part) error {
	var errs []error
	for run := range b.runs {
		for i, p := range parts {
			if p.run == nil || p.once && run > 0 {
				continue
			}
			began := time.Now()
			limited, cancel := context.WithTimeout(ctx, cmp.Or(p.long, stepTime))
			err := p.run(limited)
			cancel()
			if ctx.Err() != nil {
				return ctx.Err()
			}
			fmt.Fprintf(os.Stderr, "run %d of %d: %s, %s\n", run+1, b.runs, p.name, time.Since(began).Round(time.Second/10))
			if err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", p.name, err)
				errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
				parts[i].run = nil
			}
		}
	}
	return errors.Join(errs...)
}

// pick is the size of something, full or quick.
func (b *bench) pick(full, quick int) int {
	if b.quick {
		return quick
	}
	return full
}

// tolerate turns the error of a key that rosterd lacks into a note of the rows.
func tolerate(err error, rows ...*row) error {
	var missing notThere
	if !errors.As(err, &missing) {
		return err
	}
	for _, r := range rows {
		r.note = err.Error()
	}
	return nil
}

// contactsURL is that of rosterd and get.
func (b *bench) contactsURL() string { return "http://" + b.address + "/contacts/%s" }

// get runs the program get.
func (b *bench) get(ctx context.Context, contacts, n int, args ...string) (getResult, error) {
	return get(ctx, b.contactsURL(), append([]string{"-contacts", strconv.Itoa(contacts), "-n", strconv.Itoa(n)}, args...)...)
}

// change gives each of some users, one after the other by number, their next version.
func (b *bench) change(ctx context.Context, some []user) error {
	first := some[0]
	form := url.Values{
		"kind": {string(first.kind)}, "contacts": {strconv.Itoa(first.contacts)},
		"first": {strconv.Itoa(first.index)}, "n": {strconv.Itoa(len(some))},
	}
	_, err := b.post(ctx, "http://"+b.address+"/change?"+form.Encode(), nil)
	return err
}

// backendCounts is what the backend has answered so far.
type backendCounts struct {
	Full        int `json:"full"`
	NotModified int `json:"not_modified"`
	BulkUsers   int `json:"bulk_users"`
}

func (b *bench) backendCounts(ctx context.Context) (c backendCounts, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.address+"/stats", nil)
	if err != nil {
		return c, err
	}
	data, err := b.do(request)
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(data, &c)
}

func (b *bench) post(ctx context.Context, url string, body []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	return b.do(request)
}

func (b *bench) do(request *http.Request) ([]byte, error) {
	response, err := b.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", request.URL.Path, response.Status, bytes.TrimSpace(data))
	}
	return data, err
}

// namesOf is the body of a refresh.
func namesOf(some []user) []byte {
	names := make([]string, len(some))
	for i, u := range some {
		names[i] = u.String()
	}
	data, err := json.Marshal(names)
	if err != nil {
		panic(err) // strings
	}
	return data
}

// refreshed fails unless a refresh went well for all.
func refreshed(data []byte, err error) error {
	if err != nil {
		return err
	}
	var answer struct {
		Errors int
		Failed map[string]string
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return err
	}
	if answer.Errors > 0 {
		return fmt.Errorf("the refresh failed for %d users: %v", answer.Errors, answer.Failed)
	}
	return nil
}

// final is an error that trying again does not mend.
type final struct{ error }

// retry tries again until it works, or ctx ends.
func retry(ctx context.Context, try func() error) error {
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for {
		err := try()
		var end final
		if err == nil {
			return nil
		} else if errors.As(err, &end) {
			return end.error
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return fmt.Errorf("%w; last: %w", ctx.Err(), err)
		}
	}
}
