package quiclife

import (
	"context"
	"slices"
)

// Opening a stream, within the limits of the group, of this side and of the
// peer, in this order.

// open opens a stream with try, quic-go's OpenStream or OpenUniStream.
func open[S any](c *Conn, k kind, try func() (S, error)) (none S, err error) {
	if err := c.admit(); err != nil {
		return none, err
	}
	if !c.reserve(k) {
		c.guard.streams.Add(-1)
		if c.rejected0RTT() { // the slots are held by streams that are dead
			return none, Err0RTTRejected
		}
		c.openFailed(k)
		return none, c.limitError(k, OutgoingLimit, nil)
	}
	raw, err := try()
	if err != nil {
		c.unreserve(k)
		c.guard.streams.Add(-1)
		if isPeerLimit(err) {
			c.openFailed(k)
			err = c.limitError(k, PeerLimit, err)
		}
		return none, err
	}
	return raw, nil
}

// openSync is open, but waits at a limit, with wait, quic-go's OpenStreamSync
// or OpenUniStreamSync.
func openSync[S any](ctx context.Context, c *Conn, k kind, try func() (S, error), wait func(context.Context) (S, error)) (none S, err error) {
	if ctx.Err() != nil {
		return wait(ctx) // opens nothing, and fails as quic-go does
	}
	if err := c.admit(); err != nil {
		return none, err
	}
	if err := c.awaitReservation(ctx, k); err != nil {
		c.guard.streams.Add(-1)
		return none, err
	}
	raw, err := try()
	if isPeerLimit(err) {
		raw, err = awaitPeer(ctx, c, k, wait)
	}
	if err != nil {
		c.unreserve(k)
		c.guard.streams.Add(-1)
		return none, err
	}
	return raw, nil
}

// awaitPeer waits until the peer allows a stream.
func awaitPeer[S any](ctx context.Context, c *Conn, k kind, wait func(context.Context) (S, error)) (S, error) {
	c.block(k, 1)
	defer c.block(k, -1)
	until, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.draining, cancel)()
	raw, err := wait(until)
	if err != nil && c.lifetime.Err() == nil {
		switch {
		case ctx.Err() != nil:
			err = c.limitError(k, PeerLimit, err)
		case c.draining.Err() != nil:
			err = ErrShutdown
		}
	}
	return raw, err
}

// admit counts a stream about to be opened in the group, or says why not.
func (c *Conn) admit() error {
	if c.draining.Err() != nil && c.lifetime.Err() == nil {
		return ErrShutdown
	}
	return c.guard.admitStream()
}

// reserve takes a slot of our own limit, if there is one and nobody waits.
func (c *Conn) reserve(k kind) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &c.kinds[k]
	if r.stats.Limit > 0 && (r.reserved >= r.stats.Limit || len(r.waiting) > 0) {
		return false
	}
	r.reserved++
	return true
}

func (c *Conn) unreserve(k kind) {
	c.mu.Lock()
	c.unreserveLocked(&c.kinds[k])
	c.mu.Unlock()
}

// unreserveLocked gives a slot to the open that has waited longest, or back.
func (c *Conn) unreserveLocked(r *registry) {
	if len(r.waiting) == 0 {
		r.reserved--
		return
	}
	close(r.waiting[0])
	r.waiting = slices.Delete(r.waiting, 0, 1)
}

// awaitReservation takes a slot of our own limit, waiting for one if need be.
func (c *Conn) awaitReservation(ctx context.Context, k kind) error {
	if c.reserve(k) {
		return nil
	}
	slot := make(chan struct{})
	c.mu.Lock()
	r := &c.kinds[k]
	if r.reserved < r.stats.Limit && len(r.waiting) == 0 { // freed since
		r.reserved++
		c.mu.Unlock()
		return nil
	}
	r.waiting = append(r.waiting, slot)
	c.mu.Unlock()

	c.block(k, 1)
	defer c.block(k, -1)
	var err error
	for handshake := c.raw.HandshakeComplete(); err == nil; {
		select {
		case <-slot:
			return nil
		case <-handshake: // the slots may be held by streams of a rejected 0-RTT phase, which are dead
			handshake = nil
			if c.rejected0RTT() {
				err = Err0RTTRejected
			}
		case <-c.lifetime.Done():
			err = context.Cause(c.lifetime)
		case <-c.draining.Done():
			err = ErrShutdown
		case <-ctx.Done():
			err = c.limitError(k, OutgoingLimit, ctx.Err())
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(r.waiting, slot); i >= 0 {
		r.waiting = slices.Delete(r.waiting, i, i+1)
	} else { // given to us just now: pass it on
		c.unreserveLocked(r)
	}
	return err
}
