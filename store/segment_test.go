package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func segment(notes ...journalNote) []byte {
	b := appendSegmentHeader(nil, time.Unix(1, 2))
	for _, n := range notes {
		b = appendNote(b, n)
	}
	return b
}

func someNotes() []journalNote {
	return []journalNote{
		{id{Users, "juliet@example.org"}, note{1, []byte("marked")}},
		{id{Sessions, "romeo@example.org"}, note{2, nil}},
		{id{Users, "\x00"}, note{1 << 60, make([]byte, 100)}},
	}
}

func showNotes(notes []journalNote) []string {
	var all []string
	for _, n := range notes {
		all = append(all, fmt.Sprintf("%c %q %d %q", n.kind, n.key, n.sequence, n.data))
	}
	return all
}

// Wherever a segment ends, all notes that are complete are read.
func TestTornSegment(t *testing.T) {
	notes := someNotes()
	whole := segment(notes...)
	complete := func(size int) int {
		n := 0
		for n < len(notes) && len(segment(notes[:n+1]...)) <= size {
			n++
		}
		return n
	}
	for size := range len(whole) + 1 {
		for _, tail := range []int{0, 1, 5000} { // zeros, as some file systems leave them
			data := append(slices.Clone(whole[:size]), make([]byte, tail)...)
			got, _, err := parseSegment(data)
			if err != nil {
				t.Fatalf("%d bytes and %d zeros: %v", size, tail, err)
			}
			want := notes[:complete(size)]
			if len(got) > len(want) && tail > 0 {
				want = notes[:len(got)] // the note ends with zeros itself
			}
			if !slices.Equal(showNotes(got), showNotes(want)) {
				t.Fatalf("%d bytes and %d zeros: %q, want %q", size, tail, showNotes(got), showNotes(want))
			}
		}
	}
}

// A bit that changes makes an error, or a segment that ends before the last
// note, but never another note.
func TestDamagedSegment(t *testing.T) {
	notes := someNotes()
	whole := segment(notes...)
	last := len(segment(notes[:2]...))
	for at := range len(whole) * 8 {
		if at/8 >= aliveOffset && at/8 < segmentHeader {
			continue
		}
		data := slices.Clone(whole)
		data[at/8] ^= 1 << (at % 8)
		got, _, err := parseSegment(data)
		switch {
		case err != nil:
		case at/8 < last:
			t.Fatalf("bit %d: no error", at)
		case !slices.Equal(showNotes(got), showNotes(notes[:2])):
			t.Fatalf("bit %d: %q", at, showNotes(got))
		}
	}
}

func FuzzJournal(f *testing.F) {
	f.Add(segment())
	f.Add(segment(someNotes()...))
	f.Add(segment(someNotes()...)[:60])
	f.Add(append(segment(someNotes()...), make([]byte, 20)...))
	f.Add([]byte(segmentMagic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		notes, _, err := parseSegment(data)
		if err != nil {
			if len(notes) > 0 {
				t.Error("notes beside an error")
			}
			return
		}
		again, _, err := parseSegment(segment(notes...))
		if err != nil || !slices.Equal(showNotes(notes), showNotes(again)) {
			t.Errorf("%q became %q, %v", showNotes(notes), showNotes(again), err)
		}
	})
}

func segments(t *testing.T, path string) []string {
	t.Helper()
	paths, err := filepath.Glob(path + journalInfix + "*")
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// Notes that are outdated leave the journal, those that are not stay.
func TestJournalIsRewritten(t *testing.T) {
	path := newPath(t)
	s := &state{open(t, path), t, path}
	defer func() { s.Close() }()
	d := s.contract.(*Disk)
	s.Note(Users, "stays", []byte("1"))
	s.Put(Users, "deleted", []byte("old"))
	s.flush()
	first := segments(t, path)
	big := make([]byte, 10000)
	for n := range 500 {
		s.Note(Users, fmt.Sprint("user", n%10), big)
	}
	s.Note(Users, "deleted", []byte("1"))
	s.flush()
	if got := segments(t, path); !slices.Equal(got, first) {
		t.Errorf("segments %q, want %q: nothing is outdated", got, first)
	}
	for n := range 10 {
		s.Put(Users, fmt.Sprint("user", n), []byte("a"))
	}
	s.Put(Users, "deleted", nil)
	s.flush()
	rewritten := segments(t, path)
	if len(rewritten) != 1 || slices.Equal(rewritten, first) {
		t.Fatalf("segments %q, want a new one", rewritten)
	}
	if info, err := os.Stat(rewritten[0]); err != nil || info.Size() > 200 || info.Size() != d.journal.size {
		t.Errorf("it has %d bytes, counted %d, %v", info.Size(), d.journal.size, err)
	}
	s.Note(Users, "user1", []byte("2"))
	s.Close()
	s.contract = open(t, path)
	s.want(Users, "stays", "none", "1")
	s.want(Users, "user1", "a", "2")
	s.want(Users, "deleted", "none")
}

// A rewrite that was killed before it deleted the old segment leaves notes
// twice, and outdated ones: they are read once, or not.
func TestJournalTwice(t *testing.T) {
	path := newPath(t)
	s := &state{open(t, path), t, path}
	defer func() { s.Close() }()
	s.Note(Users, "replaced", []byte("1"))
	s.Note(Users, "deleted", []byte("1"))
	s.Note(Users, "k", []byte("1"))
	s.Note(Users, "k", []byte("2"))
	old := segments(t, path)
	data, err := os.ReadFile(old[0])
	if err != nil {
		t.Fatal(err)
	}
	s.Put(Users, "replaced", []byte("a"))
	s.Put(Users, "deleted", nil)
	s.flush()
	s.Close()
	for _, n := range []string{"7", "9"} {
		if err := os.WriteFile(path+journalInfix+"0000000"+n, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.contract = open(t, path)
	s.want(Users, "k", "none", "1", "2")
	s.want(Users, "replaced", "a")
	s.want(Users, "deleted", "none")
	if got := segments(t, path); len(got) != 1 {
		t.Errorf("segments %q", got)
	}
}

func TestTooManyNotes(t *testing.T) {
	path := newPath(t)
	s := &state{open(t, path), t, path}
	defer func() { s.Close() }()
	big := make([]byte, 1<<20)
	for n := range 70 {
		s.Note(Users, fmt.Sprint("user", n), big)
	}
	if err := s.Err(); !errors.Is(err, errNotesFull) {
		t.Errorf("the error is %v, want %v", err, errNotesFull)
	}
	kept := 0
	if err := s.Noted(Users, func(string, [][]byte) error { kept++; return nil }); err != nil || kept < 60 || kept > 64 {
		t.Errorf("%d notes are kept, %v", kept, err)
	}
	for n := range 70 {
		s.Put(Users, fmt.Sprint("user", n), nil)
	}
	s.flush()
	if err := s.Err(); err != nil {
		t.Errorf("there is room again, but the error is %v", err)
	}
	s.Note(Users, "k", []byte("1"))
	s.want(Users, "k", "none", "1")
}

func TestCleanStopLeavesOneFile(t *testing.T) {
	path := newPath(t)
	d := open(t, path)
	if !d.Ended().IsZero() {
		t.Errorf("a new store ended %v", d.Ended())
	}
	d.Note(Users, "k", []byte("1"))
	d.Put(Users, "k", []byte("a"))
	before := time.Now()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if paths, _ := filepath.Glob(path + "*"); len(paths) != 1 {
		t.Errorf("files %q", paths)
	}
	d = open(t, path)
	defer d.Close()
	if d.Ended().Before(before) || d.Ended().After(time.Now()) {
		t.Errorf("ended %v, want between %v and now", d.Ended(), before)
	}
}
