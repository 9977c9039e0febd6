package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"rosterd/e2e/harness"
	"rosterd/internal/freeport"
)

// What deploy/compose.yaml puts together works together, without the containers: Prosody with
// its two files, the backend with its variables, rosterd with its configuration.
func TestCompose(t *testing.T) {
	t.Parallel()
	harness.Require(t.Context(), t)
	ctx := bounded(t)
	var compose struct {
		Services map[string]struct {
			Command     []string
			Environment map[string]string
		}
	}
	var configured map[string]map[string]any
	for file, into := range map[string]any{"../deploy/compose.yaml": &compose, "../deploy/compose/rosterd.yaml": &configured} {
		if err := yaml.Unmarshal([]byte(read(t, file)), into); err != nil {
			t.Fatal(err)
		}
	}
	// Files are included by a name in the container.
	const include = `Include "conf.d/*.cfg.lua"`
	const log = `log = { { levels = { min = "info" }, to = "console" } }` // the harness waits for more
	global := read(t, "../deploy/compose/prosody.cfg.lua")
	if !strings.Contains(global, include) || !strings.Contains(global, log) {
		t.Fatal("prosody.cfg.lua is not as expected")
	}
	global = strings.ReplaceAll(strings.Replace(global, log, "", 1), `{ "*" }`, `{ "127.0.0.1" }`)
	prosody := runProsody(t, harness.ProsodyOptions{
		GlobalLua: strings.Replace(global, include, read(t, "../deploy/prosody.cfg.lua"), 1), Files: readOnlyModule(t),
		ServerOptions: harness.ServerOptions{Host: "unused.example", Users: users("juliet@example.org"), Grants: harness.Grants{Plain: true}},
	})

	backend, refresh := freeport.Of(t), freeport.Of(t)
	there := strings.NewReplacer("prosody:5347", prosody.ComponentAddress(), "backend:8000", backend, "rosterd:5290", refresh, "0.0.0.0:8000", backend)
	c := compose.Services["backend"]
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal(err) // slixmpp needs it, too
	}
	program := exec.CommandContext(t.Context(), python, append(c.Command[1:len(c.Command)-1:len(c.Command)-1], "../deploy/examples/backend.py")...)
	program.Env = os.Environ()
	for name, value := range c.Environment {
		program.Env = append(program.Env, name+"="+there.Replace(value))
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Process.Kill(); _ = program.Wait() })

	settings := map[string]any{}
	for section, keys := range configured {
		for key, value := range keys {
			if text, is := value.(string); is {
				value = there.Replace(text)
			}
			settings[section+"."+key] = value
		}
	}
	settings["refresh.listen"], settings["metrics.listen"] = refresh, freeport.Of(t)
	w := &world{server: prosody, rosterd: run(t, harness.RosterdOptions{Settings: settings})}
	if err := w.rosterd.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	poll(ctx, t, func() bool {
		resp, err := http.Get("http://" + backend + "/contacts/juliet")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	}, func() string { return "the backend does not answer" })
	juliet := w.login(ctx, t, gosrc, "juliet@example.org/balcony")
	if items := roster(ctx, t, juliet); len(items) != 1 || items[0].Name != "Romeo" {
		t.Errorf("the roster is %+v", items)
	}
	change, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://"+backend+"/contacts/juliet", strings.NewReader(`{"romeo@example.org": {"name": "Romeo, my love"}}`))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(change)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if push, err := juliet.WaitPush(ctx); err != nil || push.Name != "Romeo, my love" {
		t.Errorf("pushed %+v, %v", push, err)
	}
}
