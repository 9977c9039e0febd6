package harness

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// fakeRosterd is what this test binary becomes when the harness starts it in
// rosterd's place: it is ready at the second question, and ends with code 7.
func fakeRosterd() {
	config, err := os.ReadFile(os.Args[2])
	if err != nil {
		panic(err)
	}
	fmt.Println("an environment of", os.Getenv("ROSTERD_LOG_LEVEL"))
	asked := 0
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked < 2 {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "# TYPE q counter\nq{b=\"2\",a=\"1\"} 3\n# TYPE d histogram\nd_bucket{le=\"+Inf\"} 2\nd_sum 5\nd_count 2\n")
	})
	mux.HandleFunc("POST "+refreshPath, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprint(w, `{"status":"error","message":"m","updated":1,"errors":2,"failed":{"juliet":"why"}}`)
	})
	for _, match := range regexp.MustCompile(`listen: "(.*)"`).FindAllStringSubmatch(string(config), -1) {
		go func() { panic(http.ListenAndServe(match[1], mux)) }()
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
	os.Exit(7)
}

func TestRosterd(t *testing.T) {
	ctx := deadline(t)
	r, err := StartRosterd(RosterdOptions{
		Binary: os.Args[0], ContactsURL: "http://127.0.0.1:1/%s",
		Env: []string{"HARNESS_FAKE_ROSTERD=1", "ROSTERD_LOG_LEVEL=whales"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.WaitLog(ctx, "environment of whales"); err != nil {
		t.Error(err)
	}
	answer, err := r.PostRefresh(ctx, `["juliet"]`)
	if err != nil || fmt.Sprintf("%+v", answer) != "{Code:500 Status:error Message:m Updated:1 Errors:2 Accepted:0 Retry:false Failed:map[juliet:why]}" {
		t.Errorf("refresh: %+v, %v", answer, err)
	}
	metrics, err := r.Scrape(ctx)
	if err != nil || metrics[`q{a="1",b="2"}`] != 3 || metrics["d_count"] != 2 || metrics["d_sum"] != 5 {
		t.Errorf("metrics: %v, %v", metrics, err)
	}
	if code, err := r.Stop(ctx); code != 7 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if err := r.WaitReady(ctx); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("ready after its end: %v", err)
	}
}

func TestBuildFails(t *testing.T) {
	build, _, remove := Builds(t.TempDir())
	defer remove()
	if _, err := build(); err == nil {
		t.Error("built nothing")
	}
}
