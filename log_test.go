package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"rosterd/config"
	"rosterd/internal/bubble"
	"rosterd/metrics"
)

// slow is a reader of the log that takes nothing before it is let.
type slow struct {
	strings.Builder
	began chan struct{} // receives once for each write
	go_   chan struct{} // lets one write end
}

func (s *slow) Write(p []byte) (int, error) {
	s.began <- struct{}{}
	<-s.go_
	return s.Builder.Write(p)
}

// TestLogReaderIsSlow logs more than waits for a reader: nobody is held up, and the
// log says, in its own form, how much is missing.
func TestLogReaderIsSlow(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		reader := &slow{began: make(chan struct{}, 1000), go_: make(chan struct{})}
		out := newOutput(reader)
		log, _ := newLogger(config.Log{Level: "info", Format: "json"}, out, new(metrics.Events))
		log.Info("first")
		<-reader.began
		const lines = 12
		for i := range lines { // of which ten find room
			log.Info(strings.Repeat("x", maxQueue/11), "line", i)
		}
		close(reader.go_)
		synctest.Wait()
		log.Info("last")
		out.Close()
		var got []string
		for line := range strings.Lines(reader.String()) {
			var record struct {
				Msg   string
				Line  int
				Lines int
			}
			if err := json.Unmarshal([]byte(line), &record); err != nil {
				t.Fatalf("%v: %.100q", err, line)
			}
			got = append(got, fmt.Sprint(record.Msg[:min(len(record.Msg), 20)], record.Line+record.Lines))
		}
		want := []string{"first0"}
		for i := range lines - 2 {
			want = append(want, fmt.Sprint(strings.Repeat("x", 20), i))
		}
		want = append(want, "log lines are lost, 2", "last0")
		if strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestLogReaderNeverComes ends though what waits is never taken.
func TestLogReaderNeverComes(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		reader := &slow{began: make(chan struct{}, 1), go_: make(chan struct{})}
		out := newOutput(reader)
		fmt.Fprintln(out, "rosterd: the reason why it ends")
		out.Close()
		fmt.Fprintln(out, "too late")
		close(reader.go_)
		<-out.done
		if got := reader.String(); got != "rosterd: the reason why it ends\n" {
			t.Errorf("wrote %q", got)
		}
	})
}
