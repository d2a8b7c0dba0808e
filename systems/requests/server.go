package main

import (
	"context"
	"crypto/sha256"
	"io"
	"sync"

	"github.com/quiclife/quiclife"
)

// answer is the handler in all versions. It answers a request with its hash.
func answer(s io.ReadWriter) error {
	request, err := io.ReadAll(s)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(request)
	_, err = s.Write(sum[:])
	return err // careless: nobody closes s
}

// An acceptor is a *quic.Conn or a *quiclife.Conn.
type acceptor[S io.ReadWriter] interface {
	AcceptStream(context.Context) (S, error)
}

// serve is the accept loop of a server on quic-go. It is also the accept loop on
// quiclife if only the import line was changed.
func serve[C acceptor[S], S io.ReadWriter](c C, t *tally) {
	var handlers sync.WaitGroup
	defer handlers.Wait()
	for {
		s, err := c.AcceptStream(context.Background())
		if err != nil {
			return // the connection has ended
		}
		handlers.Go(func() {
			if err := answer(s); err != nil {
				t.unanswered.Add(1)
			}
		})
	}
}

// serveHandler is the server as one would write it on quiclife. Serve ends each
// stream when its handler returns.
func serveHandler(c *quiclife.Conn, t *tally) {
	c.Serve(context.Background(), quiclife.Handlers{ // returns once the connection has ended
		Stream: func(_ context.Context, s *quiclife.Stream) error {
			err := answer(s)
			if err != nil {
				t.unanswered.Add(1)
			}
			return err
		},
	})
}
