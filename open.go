package quiclife

import "context"

// Opening a stream. First the limits of the group apply, then this side's own,
// then the peer's.

// open opens a stream with try, quic-go's OpenStream or OpenUniStream.
func open[S any](c *Conn, k kind, try func() (S, error)) (none S, err error) {
	if err := c.admit(); err != nil {
		return none, err
	}
	if !c.takeSlot(k) {
		if c.rejected0RTT() { // the slots are held by streams that the rejection of 0-RTT has ended
			return none, Err0RTTRejected
		}
		c.openFailed(k)
		return none, c.limitError(k, LimitOutgoing, nil)
	}
	raw, err := try()
	if err != nil {
		c.releaseSlot(k)
		if isPeerLimit(err) {
			c.openFailed(k)
			err = c.limitError(k, LimitPeer, err)
		}
		return none, err
	}
	return raw, nil
}

// openSync is open, but waits at a limit. wait is quic-go's OpenStreamSync or
// OpenUniStreamSync.
func openSync[S any](ctx context.Context, c *Conn, k kind, try func() (S, error), wait func(context.Context) (S, error)) (none S, err error) {
	if ctx.Err() != nil {
		return wait(ctx) // opens nothing, and fails as quic-go does
	}
	if err := c.admit(); err != nil {
		return none, err
	}
	if err := c.awaitSlot(ctx, k); err != nil {
		return none, err
	}
	raw, err := try()
	if isPeerLimit(err) {
		raw, err = awaitPeer(ctx, c, k, wait)
	}
	if err != nil {
		c.releaseSlot(k)
		return none, err
	}
	return raw, nil
}

// awaitPeer waits until the peer allows a stream.
func awaitPeer[S any](ctx context.Context, c *Conn, k kind, wait func(context.Context) (S, error)) (S, error) {
	defer c.block(k)()
	until, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.draining, cancel)()
	raw, err := wait(until)
	if err != nil && c.lifetime.Err() == nil {
		switch {
		case ctx.Err() != nil:
			err = c.limitError(k, LimitPeer, err)
		case c.draining.Err() != nil:
			err = ErrShutdown
		}
	}
	return raw, err
}

// admit returns an error if no stream may be opened now.
func (c *Conn) admit() error {
	if c.draining.Err() != nil && c.lifetime.Err() == nil {
		return ErrShutdown
	}
	return c.guard.admitStream()
}

// takeSlot takes a slot of this side's own limit, if one is free and nobody
// waits for it.
func (c *Conn) takeSlot(k kind) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kinds[k].slots.TryTake()
}

// releaseSlot gives the slot back when the open that took it has failed.
func (c *Conn) releaseSlot(k kind) {
	c.mu.Lock()
	c.kinds[k].slots.Release()
	c.mu.Unlock()
}

// awaitSlot takes a slot of this side's own limit, and waits for one if
// necessary.
func (c *Conn) awaitSlot(ctx context.Context, k kind) error {
	c.mu.Lock()
	slot := c.kinds[k].slots.Take()
	c.mu.Unlock()
	if slot == nil {
		return nil
	}
	defer c.block(k)()
	var err error
	for handshake := c.raw.HandshakeComplete(); err == nil; {
		select {
		case <-slot:
			return nil
		case <-handshake: // the slots may be held by streams that the rejection of 0-RTT has ended
			handshake = nil
			if c.rejected0RTT() {
				err = Err0RTTRejected
			}
		case <-c.lifetime.Done():
			err = context.Cause(c.lifetime)
		case <-c.draining.Done():
			err = ErrShutdown
		case <-ctx.Done():
			err = c.limitError(k, LimitOutgoing, ctx.Err())
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kinds[k].slots.Leave(slot)
	return err
}
