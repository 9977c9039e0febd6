package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"rosterd/e2e/harness"
	"rosterd/e2e/webdemo"
)

// The page of `make demo`: an editor of the backend's contacts beside Converse.js, in a real
// browser.
func TestBrowser(t *testing.T) {
	t.Parallel()
	ctx := bounded(t)
	converse, err := webdemo.Converse(ctx)
	if errors.Is(err, webdemo.ErrNoNPM) && os.Getenv("E2E") != "required" {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	browser := newBrowser(t)
	webProsody := prosody
	webProsody.start = func(ctx context.Context, opts harness.ServerOptions) (*harness.Server, error) {
		opts.PEP = true
		return harness.StartProsody(ctx, harness.ProsodyOptions{ServerOptions: opts, WebSocket: true})
	}
	w := start(t, setup{server: webProsody, settings: map[string]any{"state.path": filepath.Join(t.TempDir(), "state.db")}})
	b := &chat{t: t, browser: browser}
	w.backend.Set("juliet", harness.Contacts{
		"romeo@example.org":    {Name: "Romeo", Groups: map[string]bool{"Friends": true}},
		"mercutio@example.org": {Name: "Mercutio", Groups: map[string]bool{"Friends": true}},
	})
	w.backend.Set("romeo", harness.Contacts{"juliet@example.org": {Name: "Juliet"}})
	friend := &webdemo.Friend{Options: harness.ClientOptions{Address: w.server.ClientAddress(), JID: "romeo@example.org/orchard", Password: password}}
	t.Cleanup(friend.Close)
	page, err := webdemo.Serve(webdemo.Options{
		Converse: converse, WebSocket: w.server.WebSocketURL(), Backend: w.backend,
		Refresh: func(ctx context.Context, user string) (harness.RefreshAnswer, error) {
			return w.rosterd.PostRefresh(ctx, fmt.Sprintf("[%q]", user))
		},
		User: "juliet", Host: "example.org", Password: password, Friend: "romeo", Visit: friend.Visit,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(page.Close)
	if err := browser.Size(1400, 900, false); err != nil {
		t.Fatal(err)
	}
	b.run(chromedp.Navigate(page.URL))
	b.want(`has("romeo", "Romeo", "Friends", "offline") && has("mercutio", "Mercutio", "Friends", "offline")`)

	// The application changes; the chat follows.
	b.run(chromedp.SendKeys(`#add [name="jid"]`, "benvolio"), chromedp.SendKeys(`#add [name="name"]`, "Benvolio"),
		chromedp.SendKeys(`#add [name="group"]`, "Verona"), chromedp.Click("#add button"))
	b.want(`has("benvolio", "Benvolio", "Verona")`)
	b.edit("benvolio", "Name", "Cousin Ben")
	b.want(`has("benvolio", "Cousin Ben", "Verona")`)
	b.edit("benvolio", "Group", "Montague")
	b.want(`has("benvolio", "Cousin Ben", "Montague")`)
	b.click(`tr[data-jid="benvolio@example.org"] button`)
	b.want(`!contact("benvolio")`)

	// A contact comes, with an avatar, and goes.
	b.run(chromedp.Click("#come"))
	b.want(`has("romeo", "Romeo", "Friends", "online")`)
	b.want(`contact("romeo").picture`)
	screenshot(t, browser, "demo")
	b.run(chromedp.Click("#go"))
	b.want(`has("romeo", "Romeo", "Friends", "offline")`)

	// An edit that is refused leaves the truth.
	b.inChat(`chat.querySelector('[data-jid="mercutio@example.org"]').parentElement.querySelector(".remove-xmpp-contact").click()`)
	b.want(`chat.querySelector(".modal.show .btn-primary, .modal.show [type=submit]")`)
	screenshot(t, browser, "demo-remove")
	b.inChat(`chat.querySelector(".modal.show .btn-primary, .modal.show [type=submit]").click()`)
	waitMetric(ctx, t, w.rosterd, `rosterd_queries_total{result="not_allowed"}`, 1)
	b.want(`has("mercutio", "Mercutio", "Friends")`)
	screenshot(t, browser, "demo-refused")

	// rosterd is away when she logs in: the chat shows what it has, and follows when rosterd is back.
	if _, err := w.rosterd.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	b.run(chromedp.Reload())
	b.want(`chat.body.dataset.online`)
	w.backend.Set("juliet", harness.Contacts{"romeo@example.org": {Name: "Romeo is back", Groups: map[string]bool{"Friends": true}}})
	w.connect(ctx, t)
	b.want(`has("romeo", "Romeo is back", "Friends") && !contact("mercutio")`)
	for line := range strings.Lines(browser.Errors()) {
		if strings.HasPrefix(line, "Uncaught") {
			t.Error(line)
		}
	}
}

// chat is the page with the chat in it.
type chat struct {
	t       *testing.T
	browser *harness.Browser
}

func (c *chat) run(actions ...chromedp.Action) {
	c.t.Helper()
	if err := c.browser.Run(actions...); err != nil {
		c.t.Fatal(err)
	}
}

// shown defines chat, the document of Converse.js, and what its roster shows.
const shown = `const chat = document.querySelector("iframe")?.contentDocument;
const contacts = () => [...(chat?.querySelectorAll("converse-roster-contact a[data-jid]") || [])].map((a) => ({
  user: a.dataset.jid.split("@")[0], name: a.querySelector(".contact-name")?.textContent.trim(),
  group: a.closest(".roster-group")?.dataset.group, status: a.closest("li")?.dataset.status,
  picture: !!a.querySelector("converse-avatar image, converse-avatar img"),
}));
const contact = (user) => contacts().find((c) => c.user === user);
const has = (user, name, group, status) => {
  const c = contact(user);
  return c && c.name === name && c.group === group && (!status || c.status === status);
};
`

// want waits until a condition holds in the page.
func (c *chat) want(condition string) {
	c.t.Helper()
	err := c.browser.Run(chromedp.Poll(`(() => { `+shown+` return !!(`+condition+`); })()`, nil,
		chromedp.WithPollingInterval(100*time.Millisecond), chromedp.WithPollingTimeout(time.Minute)))
	if err != nil {
		var is, answer string
		_ = c.browser.Run(chromedp.Evaluate(`(() => { `+shown+` return JSON.stringify(contacts()); })()`, &is), chromedp.Text("#answer", &answer))
		screenshot(c.t, c.browser, "demo-failed")
		c.t.Fatalf("%s: %v; the roster shows %s; the page says %q\n%s", condition, err, is, answer, c.browser.Errors())
	}
}

// inChat runs a script in the page.
func (c *chat) inChat(script string) {
	c.t.Helper()
	c.run(chromedp.Evaluate(`(() => { `+shown+script+`; })()`, nil))
}

// click clicks on what is in the editor, of which the page may just make another one.
func (c *chat) click(selector string) {
	c.t.Helper()
	c.want(fmt.Sprintf(`((button) => { button?.click(); return button; })(document.querySelector(%q))`, selector))
}

// edit changes a field of a contact in the editor.
func (c *chat) edit(user, field, value string) {
	c.t.Helper()
	c.want(fmt.Sprintf(`((field) => {
		if (!field) return false;
		field.value = %q;
		field.dispatchEvent(new Event("change"));
		return true;
	})(document.querySelector('tr[data-jid="%s@example.org"] [aria-label=%q]'))`, value, user, field))
}
