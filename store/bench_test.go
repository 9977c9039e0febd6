package store

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// benchUser is a user of 200 contacts, whose roster takes 2,600 bytes.
func benchUser(n int) User {
	now := time.Now()
	return User{
		JID: fmt.Sprintf("user%07d@example.org", n), Roster: noise(n, 2600), Items: 200, Version: "3f2a9c01d4e5b687", Fetched: now,
		Epoch: 7, Answered: now, Told: []Told{{Resource: "balcony.7d1f2", Versioned: true, Asked: now}},
	}
}

// cpu is the time that this process has used.
func cpu() time.Duration {
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// An operation is a user who is put, without their roster, of 1,000 or of 100,000 in no
// order. They are written in groups of so many. cpu is of the whole process.
func BenchmarkPut(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "rosterd.db"))
	defer s.Close()
	const many = 100000
	all := make([]User, many)
	for n := range all {
		all[n] = benchUser(n)
		s.PutUser(all[n], n%10 == 0, nil)
	}
	sync := func() {
		done := make(chan struct{})
		s.Sync(func() { close(done) })
		<-done
	}
	sync()
	for _, group := range []int{1, 30, 1000} {
		for _, of := range []int{1000, many} {
			b.Run(fmt.Sprintf("group=%d/of=%d", group, of), func(b *testing.B) {
				b.ReportAllocs()
				begun := cpu()
				n := 0
				for b.Loop() {
					n++
					s.PutUser(all[n*7919%of], false, nil)
					if n%group == 0 {
						sync()
					}
				}
				b.ReportMetric(float64(cpu()-begun)/float64(n), "cpu-ns/op")
			})
		}
	}
}

func BenchmarkUser(b *testing.B) {
	s := open(b, filepath.Join(b.TempDir(), "rosterd.db"))
	defer s.Close()
	const many = 10000
	for n := range many {
		s.PutUser(benchUser(n), true, nil)
	}
	done := make(chan struct{})
	s.Sync(func() { close(done) })
	<-done
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		if u, err := s.User(fmt.Sprintf("user%07d@example.org", n*7919%many)); err != nil || len(u.Roster) != 2600 {
			b.Fatal(err)
		}
	}
}

// An operation is the start with 100,000 users and resources: to open the store,
// to read all resources, and to stop.
func BenchmarkStart(b *testing.B) {
	path := filepath.Join(b.TempDir(), "rosterd.db")
	s := open(b, path)
	const many = 100000
	for n := range many {
		u := benchUser(n)
		s.PutUser(u, true, nil)
		s.PutResource(Resource{JID: u.JID + "/balcony.7d1f2", Connected: true, Interested: true, Available: true}, false)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s := open(b, path)
		count := 0
		if err := s.Resources(func(Resource) error { count++; return nil }); err != nil || count != many {
			b.Fatal(count, err)
		}
		b.StopTimer()
		s.Close()
		b.StartTimer()
	}
}
