package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"rosterd/e2e/harness"
)

// newBrowser is a headless Chromium that ends with the test.
func newBrowser(t *testing.T) *harness.Browser {
	t.Helper()
	browser, err := harness.NewBrowser(bounded(t))
	if errors.Is(err, harness.ErrNoBrowser) && os.Getenv("E2E") != "required" {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(browser.Close)
	return browser
}

// screenshot keeps what a page looks like for whoever wants to see it, if the environment
// names a folder in SCREENSHOTS.
func screenshot(t *testing.T, browser *harness.Browser, name string) {
	t.Helper()
	if folder := os.Getenv("SCREENSHOTS"); folder != "" {
		if err := browser.Screenshot(filepath.Join(folder, name+".png")); err != nil {
			t.Error(err)
		}
	}
}

// The status page says what works and what does not, on a telephone and in the dark, too,
// and names no user.
func TestStatusPage(t *testing.T) { onServers(t, testStatusPage) }

func testStatusPage(t *testing.T, srv server) {
	ctx := bounded(t)
	browser := newBrowser(t)
	w := start(t, setup{server: srv, settings: map[string]any{"state.path": filepath.Join(t.TempDir(), "state.db")}})
	w.backend.Set("juliet", harness.Contacts{"romeo@example.org": {Name: "Romeo"}})
	client := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	wantRoster(ctx, t, client, harness.Item{JID: "romeo@example.org", Name: "Romeo", Subscription: "both"})
	w.backend.Set("juliet", harness.Contacts{"mercutio@example.org": {Name: "Mercutio"}})
	w.refresh(ctx, t, "juliet")

	page := w.rosterd.Metrics("/").URL
	var text string
	for _, view := range []struct {
		name          string
		width, height int64
		dark          bool
	}{{"wide", 1100, 900, false}, {"narrow", 400, 800, false}, {"dark", 1100, 900, true}} {
		var overflow int
		if err := browser.Size(view.width, view.height, view.dark); err != nil {
			t.Fatal(err)
		}
		if err := browser.Run(chromedp.Navigate(page), chromedp.WaitVisible("main h1"), chromedp.Text("body", &text),
			chromedp.Evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth", &overflow)); err != nil {
			t.Fatal(err)
		}
		if overflow > 0 {
			t.Errorf("%s: %d pixels do not fit", view.name, overflow)
		}
		screenshot(t, browser, "status-"+srv.name+"-"+view.name)
	}
	for _, want := range []string{"Everything works.", "example.org", "roster queries", "connected", "answers", "Connected resources", "rosterd starts"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not say %q:\n%s", want, text)
		}
	}
	for _, name := range []string{"juliet", "romeo", "mercutio", "Romeo"} {
		if strings.Contains(text, name) {
			t.Errorf("the page names %s:\n%s", name, text)
		}
	}

	if _, err := w.rosterd.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	// The open page says itself that it is old by now. Its next try is up to 10 s away.
	if err := browser.Run(chromedp.WaitVisible("#stale")); err != nil {
		t.Error(err)
	}
	if complaints := browser.Errors(); strings.Contains(complaints, "Content Security Policy") || strings.Contains(complaints, "exception") {
		t.Error(complaints)
	}
}
