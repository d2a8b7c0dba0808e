package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/systems/internal/lab"
)

// A conn is a *quic.Conn or a *quiclife.Conn.
type conn[S io.WriteCloser, C io.ReadWriteCloser] interface {
	OpenUniStreamSync(context.Context) (S, error)
	AcceptStream(context.Context) (C, error)
	CloseWithError(quic.ApplicationErrorCode, string) error
	Context() context.Context
}

type dialer[D any] = func(ctx context.Context, addr string, tlsConf *tls.Config, conf *quic.Config) (D, error)

// producerGuard returns the Guard for producers on quiclife. The producers' code
// is the same on both libraries.
func producerGuard(onLeak func(quiclife.Leak)) *quiclife.Guard {
	return lab.Watched("producers", &quiclife.Guard{OnLeak: onLeak, Logger: slog.New(slog.DiscardHandler)})
}

// A producer sends a batch every batchEvery.
type producer struct {
	id    int
	conns *lab.Conns
	told  func(batchKey) // called for each batch that was acknowledged
	// timeout is the connection's MaxIdleTimeout. After this time the collector
	// notices that the producer was killed. 0 means 30 s.
	timeout time.Duration

	batch int // number of the last batch
	text  []byte
	sent  atomic.Int64 // batches sent completely
	idle  atomic.Bool  // nothing more will be sent
}

// produce sends batches until ctx is done. Then it waits for the collector to
// close the connection. If the collector closes it earlier, produce dials again.
func produce[D conn[S, C], S io.WriteCloser, C io.ReadWriteCloser](ctx context.Context, p *producer, addr string, tlsConf *tls.Config, dial dialer[D]) {
	defer p.idle.Store(true)
	for ctx.Err() == nil {
		c, err := dial(ctx, addr, tlsConf, &quic.Config{MaxIdleTimeout: p.timeout})
		if err != nil { // the collector is shutting down
			select {
			case <-ctx.Done():
			case <-time.After(batchEvery):
			}
			continue
		}
		p.conns.Add(c)
		ship(ctx, p, c)
	}
}

func ship[D conn[S, C], S io.WriteCloser, C io.ReadWriteCloser](ctx context.Context, p *producer, c D) {
	defer c.CloseWithError(0, "")
	gone, cancel := context.WithCancel(ctx)
	acks := make(chan struct{})
	go func() {
		defer close(acks)
		defer cancel()
		readAcks(p, c)
	}()
	tick := time.NewTicker(batchEvery)
	defer tick.Stop()
	for gone.Err() == nil {
		select {
		case <-gone.Done():
		case <-tick.C:
			err := send(gone, p, c)
			if e, ok := errors.AsType[*quic.StreamError](err); ok && e.ErrorCode == codeShutdown {
				<-gone.Done() // the acknowledgements are about to end
			}
		}
	}
	p.idle.Store(ctx.Err() != nil)
	<-acks
	<-c.Context().Done() // the collector closes it
}

var errSource = errors.New("the source of the lines failed")

// send sends the next batch.
func send[D conn[S, C], S io.WriteCloser, C io.ReadWriteCloser](ctx context.Context, p *producer, c D) error {
	s, err := c.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	p.batch++
	text, err := p.lines()
	if _, err := s.Write(text); err != nil {
		return err // careless: nobody ends the stream
	}
	if err != nil {
		return err // careless: nobody ends the stream here either
	}
	if err := s.Close(); err != nil {
		return err
	}
	p.sent.Add(1)
	return nil
}

// lines makes a batch. In every 15 batches three go wrong: one is malformed, one
// makes the collector's parser panic, and one breaks off because its source
// fails.
func (p *producer) lines() ([]byte, error) {
	k := batchKey{p.id, p.batch}
	p.text = binary.BigEndian.AppendUint32(p.text[:0], uint32(k.batch))
	p.text = binary.BigEndian.AppendUint32(p.text, batchLines)
	for n := range batchLines {
		switch trouble := k.batch % 15; {
		case trouble == 3 && n == batchLines-10:
			return p.text, errSource
		case trouble == 10 && n == 10:
			p.text = append(p.text, malformed...)
		case trouble == 14 && n == 10:
			p.text = append(p.text, tripping...)
		default:
			p.text = appendLine(p.text, k, n)
		}
		p.text = append(p.text, '\n')
	}
	return p.text, nil
}

// readAcks reads the greeting and the acknowledgements. When they end, it closes
// its half, so that the collector knows.
func readAcks[D conn[S, C], S io.WriteCloser, C io.ReadWriteCloser](p *producer, c D) {
	s, err := c.AcceptStream(c.Context())
	if err != nil {
		return
	}
	var id [4]byte
	for {
		if _, err := io.ReadFull(s, id[:]); err == io.EOF {
			s.Close()
			return
		} else if err != nil {
			return
		}
		if batch := int(binary.BigEndian.Uint32(id[:])); batch > 0 {
			p.told(batchKey{p.id, batch})
		}
	}
}
