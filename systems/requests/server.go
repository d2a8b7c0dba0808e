package main

import (
	"context"
	"crypto/sha256"
	"io"
	"sync"

	"github.com/quiclife/quiclife"
)

// answer is the handler, the same everywhere: the answer to a request is its
// hash.
func answer(s io.ReadWriter) error {
	request, err := io.ReadAll(s)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(request)
	_, err = s.Write(sum[:])
	return err // careless: nobody closes s
}

// An acceptor is what the server needs of *quic.Conn and of *quiclife.Conn.
type acceptor[S io.ReadWriter] interface {
	AcceptStream(context.Context) (S, error)
}

// serve is the server on quic-go, and on quiclife if only the import line was
// changed.
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

// serveHandler is the server as one would write it on quiclife: each stream
// ends with its handler.
func serveHandler(c *quiclife.Conn, t *tally) {
	c.Serve(context.Background(), quiclife.Handlers{ // returns when the connection has ended
		Stream: func(_ context.Context, s *quiclife.Stream) error {
			err := answer(s)
			if err != nil {
				t.unanswered.Add(1)
			}
			return err
		},
	})
}
