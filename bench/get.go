package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The program get is the limit of everything that fetches: a bare loop of
// keep-alive GETs, and encoding/json. With -conditional the GETs name the ETag,
// and the answers are 304.

// getResult is what get prints, as JSON.
type getResult struct {
	Seconds float64 // for all
	CPU     float64 // seconds, of the process, user and system
	Median  float64 // seconds, of one
}

// getContact is an entry as a simple program would decode it.
type getContact struct {
	Name         string          `json:"name"`
	Groups       map[string]bool `json:"groups"`
	Subscription string          `json:"subscription"`
}

type getter struct {
	client *http.Client
	url    string
	tags   []string // by user, with -conditional
}

func runGet(args []string) error {
	flags := flag.NewFlagSet("get", flag.ExitOnError)
	url := flags.String("url", "", "contacts URL with %s")
	contacts := flags.Int("contacts", 200, "of a roster")
	n := flags.Int("n", 1000, "users")
	passes := flags.Int("passes", 1, "over all users")
	workers := flags.Int("workers", 64, "GETs at a time")
	conditional := flags.Bool("conditional", false, "name the ETag")
	_ = flags.Parse(args)
	g := &getter{url: *url, client: &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: *workers, MaxConnsPerHost: *workers, DisableCompression: true,
	}}}
	everybody := users('u', *contacts, 0, *n)
	// The connections are there before, as they are in rosterd.
	if err := g.pass(everybody[:min(*n, *workers)], *workers, nil); err != nil {
		return err
	}
	if *conditional {
		g.tags = make([]string, *n)
		if err := g.pass(everybody, *workers, nil); err != nil {
			return err
		}
	}
	took := make([]time.Duration, *n**passes)
	cpu, began := ownCPU(), time.Now()
	for pass := range *passes {
		if err := g.pass(everybody, *workers, took[pass**n:]); err != nil {
			return err
		}
	}
	result := getResult{Seconds: time.Since(began).Seconds(), CPU: (ownCPU() - cpu).Seconds()}
	slices.Sort(took)
	result.Median = took[len(took)/2].Seconds()
	return json.NewEncoder(os.Stdout).Encode(result)
}

// pass gets the contacts of all users, and notes how long each took unless took
// is nil.
func (g *getter) pass(everybody []user, workers int, took []time.Duration) error {
	var next atomic.Int64
	var work sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		work.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= len(everybody) {
					return
				}
				began := time.Now()
				errs[w] = g.get(i, everybody[i])
				if took != nil {
					took[i] = time.Since(began)
				}
			}
		})
	}
	work.Wait()
	return errors.Join(errs...)
}

func (g *getter) get(i int, u user) error {
	request, err := http.NewRequest(http.MethodGet, strings.Replace(g.url, "%s", u.String(), 1), nil)
	if err != nil {
		return err
	}
	if g.tags != nil && g.tags[i] != "" {
		request.Header.Set("If-None-Match", g.tags[i])
	}
	response, err := g.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusNotModified && g.tags != nil:
		return nil
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: status %d", u, response.StatusCode)
	}
	if g.tags != nil {
		g.tags[i] = response.Header.Get("Etag")
	}
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	var roster map[string]getContact
	if err := json.Unmarshal(data, &roster); err != nil {
		return err
	}
	if len(roster) < u.contacts {
		return fmt.Errorf("%s: %d contacts", u, len(roster))
	}
	return nil
}
