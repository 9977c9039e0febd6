package webdemo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"sync"

	"rosterd/e2e/harness"
)

// Friend comes online and goes. Their avatar is published at the first visit. It is safe for
// concurrent use.
type Friend struct {
	Options harness.ClientOptions

	mu     sync.Mutex     // held while they come or go
	client harness.Client // nil: offline
}

// Visit has them be online or not.
func (f *Friend) Visit(ctx context.Context, online bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if online == (f.client != nil) {
		return nil
	}
	if !online {
		f.client.Close()
		f.client = nil
		return nil
	}
	options := f.Options
	options.Notify = []string{"urn:xmpp:avatar:metadata"}
	client, err := harness.NewSlixmppClient(options)
	if err != nil {
		return err
	}
	if err := come(ctx, client); err != nil {
		client.Close()
		return err
	}
	f.client = client
	return nil
}

func come(ctx context.Context, client harness.Client) error {
	if err := client.Login(ctx); err != nil {
		return fmt.Errorf("logging in: %w", err)
	}
	if _, err := client.Roster(ctx); err != nil {
		return fmt.Errorf("asking for the roster: %w", err)
	}
	publisher, ok := client.(harness.Publisher)
	if !ok {
		return errors.New("this client publishes no avatar")
	}
	if _, err := publisher.PublishAvatar(ctx, avatar()); err != nil {
		return fmt.Errorf("publishing an avatar: %w", err)
	}
	return client.Presence("") // with the avatar's hash (XEP-0153, by XEP-0398)
}

// Close has them leave.
func (f *Friend) Close() { _ = f.Visit(context.Background(), false) }

// avatar is a picture that nobody can take for a client's own: a red diamond on yellow.
func avatar() []byte {
	const size = 96
	m := image.NewRGBA(image.Rect(0, 0, size, size))
	for y := range size {
		for x := range size {
			dx, dy := x-size/2, y-size/2
			c := color.RGBA{0xf4, 0xc2, 0x30, 0xff}
			if max(dx, -dx)+max(dy, -dy) < size/3 {
				c = color.RGBA{0xb3, 0x1e, 0x2f, 0xff}
			}
			m.SetRGBA(x, y, c)
		}
	}
	var b bytes.Buffer
	_ = png.Encode(&b, m) // to memory: cannot fail
	return b.Bytes()
}
