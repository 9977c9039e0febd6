package store

import (
	"fmt"
	"path/filepath"
	"testing"
)

func benchmarkStores(b *testing.B, f func(b *testing.B, s contract)) {
	b.Run("memory", func(b *testing.B) {
		m := NewMemory()
		defer m.Close()
		b.ReportAllocs()
		f(b, m)
	})
	b.Run("disk", func(b *testing.B) {
		d := open(b, filepath.Join(b.TempDir(), "rosterd.db"))
		b.ReportAllocs()
		f(b, d)
		b.StopTimer()
		d.Close()
	})
}

func BenchmarkPut(b *testing.B) {
	keys, record := users(1000), contacts(1, 200)
	benchmarkStores(b, func(b *testing.B, s contract) {
		n := 0
		for b.Loop() {
			s.Put(Users, keys[n%len(keys)], record)
			n++
		}
	})
}

func BenchmarkNote(b *testing.B) {
	keys, note := users(1000), make([]byte, 100)
	benchmarkStores(b, func(b *testing.B, s contract) {
		n := 0
		for b.Loop() {
			if n++; n%100 == 0 {
				s.Put(Users, keys[n/100%len(keys)], nil)
			}
			s.Note(Users, keys[n/100%len(keys)], note)
		}
	})
}

func BenchmarkGet(b *testing.B) {
	keys := users(1000)
	benchmarkStores(b, func(b *testing.B, s contract) {
		for n, key := range keys {
			s.Put(Users, key, contacts(uint64(n), 200))
		}
		if d, ok := s.(*Disk); ok {
			stopRun(d)
			if err := d.flush(); err != nil {
				b.Fatal(err)
			}
			d.goOn()
		}
		n := 0
		for b.Loop() {
			if e, err := s.Get(Users, keys[n%len(keys)]); err != nil || e.Record == nil {
				b.Fatal(err)
			}
			n++
		}
	})
}

// An operation is 10,000 users' records, to the disk.
func BenchmarkFlush(b *testing.B) {
	keys, record := users(10000), contacts(1, 200)
	d := open(b, filepath.Join(b.TempDir(), "rosterd.db"))
	stopRun(d)
	defer d.goOn()
	b.ReportAllocs()
	for b.Loop() {
		for _, key := range keys {
			d.overlay.put(id{Users, key}, &pending{record: record})
		}
		if err := d.flush(); err != nil {
			b.Fatal(err)
		}
	}
}

// An operation is the start with 100,000 users and sessions: to open the store,
// to read all notes and sessions, and to stop.
func BenchmarkStart(b *testing.B) {
	path := filepath.Join(b.TempDir(), "rosterd.db")
	d := open(b, path)
	record := contacts(1, 200)
	for n, key := range users(100000) {
		d.Put(Users, key, record[:len(record)-n%7])
		d.Put(Sessions, key, fmt.Append(nil, "a resource or two, with what each was told: ", n))
	}
	if err := d.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		d := open(b, path)
		count := 0
		if err := d.Noted(Users, func(string, [][]byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
		if err := d.Each(Sessions, func(string, Entry) error { count++; return nil }); err != nil || count != 100000 {
			b.Fatal(count, err)
		}
		d.Close()
	}
}

func users(n int) []string {
	keys := make([]string, n)
	for k := range keys {
		keys[k] = fmt.Sprintf("user%d@example.org", k)
	}
	return keys
}
