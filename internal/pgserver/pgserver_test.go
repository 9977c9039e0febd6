package pgserver

import (
	"os"
	"testing"

	"rosterd/internal/leak"
)

// What was committed is there after a stop and after a kill, and nothing is left behind.
func TestServer(t *testing.T) {
	leak.Check(t)
	s, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Exec(t.Context(), "CREATE TABLE kept (n integer)"); err != nil {
		t.Fatal(err)
	}
	for _, end := range []func() error{s.Stop, s.Kill} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if err := s.Exec(t.Context(), "SELECT 1"); err == nil {
			t.Error("it runs still")
		}
		if err := s.Resume(); err != nil {
			t.Fatal(err)
		}
		if err := s.Exec(t.Context(), "INSERT INTO kept VALUES (1)"); err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.dir); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
}

// A replica has what the server has, takes no write until it is promoted, and does afterwards.
func TestReplica(t *testing.T) {
	leak.Check(t)
	s, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const write = "CREATE TABLE other (n integer)"
	if err := s.Exec(t.Context(), "CREATE TABLE kept (n integer)"); err != nil {
		t.Fatal(err)
	}
	replica, err := s.Replica()
	if err != nil {
		t.Fatal(err)
	}
	defer replica.Close()
	if err := replica.Exec(t.Context(), "SELECT n FROM kept"); err != nil {
		t.Error(err)
	}
	if err := replica.Exec(t.Context(), write); err == nil {
		t.Error("a replica was written")
	}
	for _, statement := range []string{"SELECT pg_promote()", write} {
		if err := replica.Exec(t.Context(), statement); err != nil {
			t.Error(err)
		}
	}
}
