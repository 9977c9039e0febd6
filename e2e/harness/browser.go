package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Browser is a headless Chromium with one page. It is used by one goroutine.
type Browser struct {
	ctx   context.Context
	close []context.CancelFunc

	mu     sync.Mutex // guards complaints
	errors []string
}

// ErrNoBrowser is returned by [NewBrowser] where there is no Chromium.
var ErrNoBrowser = errors.New("no Chromium: the tests in a browser need Debian's chromium")

// NewBrowser starts a Chromium, which ends with ctx or [Browser.Close].
func NewBrowser(ctx context.Context) (*Browser, error) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		return nil, ErrNoBrowser
	}
	b := &Browser{}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU)
	ctx, end := chromedp.NewExecAllocator(ctx, options...)
	b.close = append(b.close, end)
	b.ctx, end = chromedp.NewContext(ctx)
	b.close = append(b.close, end)
	chromedp.ListenTarget(b.ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			what := e.ExceptionDetails.Text
			if e.ExceptionDetails.Exception != nil {
				what += " " + e.ExceptionDetails.Exception.Description
			}
			b.complain(what)
		case *log.EventEntryAdded:
			if e.Entry.Level == log.LevelError {
				b.complain(e.Entry.Text + " " + e.Entry.URL)
			}
		}
	})
	if err := chromedp.Run(b.ctx, log.Enable(), runtime.Enable()); err != nil {
		b.Close()
		return nil, fmt.Errorf("starting Chromium: %w", err)
	}
	return b, nil
}

// Close ends the browser.
func (b *Browser) Close() {
	for i := len(b.close) - 1; i >= 0; i-- {
		b.close[i]()
	}
}

func (b *Browser) complain(what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.errors = append(b.errors, what)
}

// Errors are the script errors, and what the page's own policy forbade, so far.
func (b *Browser) Errors() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.errors, "\n")
}

// Run does something in the page: see package chromedp.
func (b *Browser) Run(actions ...chromedp.Action) error { return chromedp.Run(b.ctx, actions...) }

// Size sets how large the page is shown, in CSS pixels, and whether the reader prefers dark colours.
func (b *Browser) Size(width, height int64, dark bool) error {
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	return b.Run(chromedp.EmulateViewport(width, height),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}))
}

// Screenshot writes what the whole page looks like to a PNG file.
func (b *Browser) Screenshot(file string) error {
	var png []byte
	if err := b.Run(chromedp.FullScreenshot(&png, 100)); err != nil {
		return err
	}
	return os.WriteFile(file, png, 0o644)
}
