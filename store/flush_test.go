package store

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func TestWrittenWithinASecond(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		d := open(t, path)
		defer d.Close()
		for round := range 3 {
			d.Put(Users, "k", fmt.Append(nil, round))
			time.Sleep(300 * time.Millisecond)
			d.Put(Users, "k", fmt.Append(nil, "later ", round)) // does not put it off
			time.Sleep(700 * time.Millisecond)
			synctest.Wait()
			value, err := d.read(id{Users, "k"})
			if err != nil {
				t.Fatal(err)
			}
			if record, err := d.codec.decode(id{Users, "k"}, value); err != nil || string(record) != fmt.Sprint("later ", round) {
				t.Errorf("round %d: %q is in the file, %v", round, record, err)
			}
		}
	})
}

func TestAliveIsWritten(t *testing.T) {
	path := newPath(t)
	synctest.Test(t, func(t *testing.T) {
		d := open(t, path)
		defer d.Close()
		begun := time.Now()
		d.Note(Users, "k", []byte("1"))
		time.Sleep(time.Hour + time.Second)
		synctest.Wait()
		data, err := os.ReadFile(segments(t, path)[0])
		if err != nil {
			t.Fatal(err)
		}
		notes, alive, err := parseSegment(data)
		if err != nil || len(notes) != 1 || !alive.Equal(begun.Add(time.Hour)) {
			t.Errorf("%d notes, alive %v, %v, want %v", len(notes), alive, err, begun.Add(time.Hour))
		}
	})
}

// More records than may wait unpacked are packed by who puts them.
func TestWhatWaitsIsPacked(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "rosterd.db"))
	stopRun(d) // as if the disk stood still
	defer d.goOn()
	record := contacts(1, 10000)
	for n := range 40 {
		d.Put(Users, fmt.Sprint("user", n), record)
	}
	if raw, _ := d.overlay.sizes(); raw > maxRaw+len(record) {
		t.Errorf("%d bytes wait unpacked", raw)
	}
	for n := range 40 {
		if e, err := d.Get(Users, fmt.Sprint("user", n)); err != nil || string(e.Record) != string(record) {
			t.Fatalf("user%d: %d bytes, %v", n, len(e.Record), err)
		}
	}
	if err := d.flush(); err != nil {
		t.Fatal(err)
	}
	if raw, _ := d.overlay.sizes(); raw != 0 || d.overlay.pending != 0 || len(d.overlay.changes) != 0 {
		t.Errorf("after a flush %d bytes wait, %d records", raw, d.overlay.pending)
	}
}
