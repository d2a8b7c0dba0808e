package main

// equivalents are generated mutations that change nothing that a test could or
// should see, each with the reason. A mutation is named by the function, the line
// and the change, as -list prints them. So the name stays when lines move.
var equivalents = map[string]string{
	"collectGarbage: return 2 * (collectorCPU() - before): 2 becomes 2+1": "an estimate of processor time: it makes collections a little rarer",

	"streamState.awaitTurn: x.turn = make(chan struct{}, 1): 1 becomes 0": "the waiter is at the channel, or soon will be, without the lock",

	"streamState.beginWrite: return false, false: false: negated": "if it may not be written, it does not matter whether it may be queued",

	"Conn.awaitStreams: return context.Cause(c.lifetime): context.Cause(c.lifetime): zero is returned": "then awaitQuiet finds the connection's end, and returns the same error",

	"Conn.lookForStallLocked: c.stallWatched.Store(true): true: negated": "a call that may block takes the lock once more, and finds the same values",

	"Conn.discard: buf := make([]byte, 16<<10): 10 becomes 10+1": "a larger buffer",

	"EarlyListener.Close: func (l *EarlyListener) Close() error { return l.l.close() }: l.l.close(): zero is returned": "quic-go's Close returns nil",
	"Listener.Close: func (l *Listener) Close() error { return l.l.close() }: l.l.close(): zero is returned":           "quic-go's Close returns nil",

	"Guard.refuse: if first && conns > 0: conns > 0: > becomes >=": "without connections there is nothing to relieve",

	"Conn.lookAgain: if q.looks++; wait > 0 && q.looks < maxLooks && !q.stopped: 0 becomes 1": "a nanosecond more or less",

	"streamState.consumeEOF: st.readFailed(0, err): 0 becomes 1": "readFailed does not look at it",

	"streamState.drain: for start := time.Now(); time.Since(start) < longest;: time.Since(start) < longest: < becomes <=": "one more read, in the last nanosecond",

	"ownedTransport.update: recent := time.Since(o.lastEnd) < minLinger || time.Now().Before(o.lingerUntil): time.Since(o.lastEnd) < minLinger: < becomes <=": "a nanosecond more or less, of a time that is a guess",

	"streamState.hurried: st.writing = queueing: dropped": "Close has claimed the half: an abort leaves the data to be delivered, and nothing is queued after this write",

	"streamState.peerStopped: if !ok || !stop.Remote: !ok || !stop.Remote: || becomes &&": "we have claimed the half, so quic-go's Close fails only if the peer reset it",

	"Conn.closeRaw: return err: err: zero is returned":                            "quic-go's CloseWithError returns nil",
	"NetConn.setDeadline: return set(t): set(t): zero is returned":                "quic-go's deadlines return nil",
	"streamState.setWriteDeadline: return err: err: zero is returned":             "quic-go's deadlines return nil",
	"Conn.graceInShortage: dropped += c.kinds[k].dropped: += becomes -=":          "it matters only whether there are any",
	"Conn.trafficLocked: moved += 2*r.stats.Opened - r.stats.Open: 2 becomes 2+1": "it has to change when a stream comes or goes, by any amount",

	"Conn.mayStallLocked: if c.stallAt == 0 || at < c.stallAt: at < c.stallAt: < becomes <=":             "it is set to what it was",
	"sweep.at: if s.next == 0 || t < s.next: t < s.next: < becomes <=":                                   "it is set to what it was",
	"Conn.wakeLocked: wait := max(at-c.now(), 0): 0 becomes 1":                                           "a nanosecond more or less",
	"sweep.plan: if s.next > 0: 0 becomes 1":                                                             "a nanosecond more or less",
	"Conn.lookAgain: if q.looks++; wait > 0 && q.looks < maxLooks && !q.stopped: wait > 0: > becomes >=": "a nanosecond more or less: one more look, when all is known",
	"refusalPace.wait: if early <= 0: early <= 0: <= becomes <":                                          "a timer that fires at once",
	"refusalPace.wait: if early <= 0: 0 becomes 1":                                                       "a nanosecond more or less",

	"samples.next: return until != 0 && st.conn.start.Add(st.opened).UnixNano() < until && s.opened.Add(1)%sampleEvery == 0: st.conn.start.Add(st.opened).UnixNano() < until: < becomes <=": "a nanosecond more or less, of ten minutes",

	"heapTries: var heapTries = &pace.Tries{First: time.Second, Most: 10 * time.Second, Share: forSlots}: 10 becomes 10+1": "a time that is a guess",
	"sweep.plan: c.spare = now + max(minSpare, 200*(now-s.now)): 200 becomes 200+1":                                        "a share that is a guess",
	"Conn.discard: buf := make([]byte, 16<<10): 16 becomes 16+1":                                                           "a larger buffer",
	"Guard.heapAbove: heapTries.Spent(time.Now(), cost, heap.Live() <= g.MaxHeap): heap.Live() <= g.MaxHeap: <= becomes <": "a byte more or less, of a heap that changes all the time",

	"Listener.Serve: defer l.l.finish(): dropped": "the listener is closed by then, and begin or quic-go says so to whoever uses it",

	"slots.queue[P].Pop: return p: p: zero is returned": "we do not look at what heap.Remove returns",

	"GuardStats.add: if most := s.Most.of(k); r.stats.Open > *most: r.stats.Open > *most: > becomes >=": "it is set to what it was",
	"Guard.abandonGrace: return max(g.AbandonGrace, 0): 0 becomes 1":                                    "a nanosecond more or less",

	"streamState.reclaim: send := false: false: negated": "it is set before anybody reads it",

	"slots.queue[P].Less: return q[i].turns[0].order < q[j].turns[0].order: q[i].turns[0].order < q[j].turns[0].order: < becomes <=": "no two turns have the same order",
	"streamState.claimOurs: return false, false, false: false: negated":                                                              "nobody reads it if the stream is not ours",
	"streamState.claimOurs: return false, false, false: false: negated #2":                                                           "nobody reads it if the stream is not ours",

	"Guard.wrap: c.stallAsking = pace.Backoff{First: stallInterval, Most: 2 * time.Minute}: 2 becomes 2+1": "a time that is a guess",

	"effectiveLimit: case configured < 0: configured < 0: < becomes <=": "0 is in the case before",

	"Stream.SetDeadline: return s.SetWriteDeadline(t): s.SetWriteDeadline(t): zero is returned":                                                                               "quic-go's deadlines return nil",
	"Stream.SetReadDeadline: func (s *Stream) SetReadDeadline(t time.Time) error { return s.st.setReadDeadline(t) }: s.st.setReadDeadline(t): zero is returned":               "quic-go's deadlines return nil",
	"Stream.SetWriteDeadline: func (s *Stream) SetWriteDeadline(t time.Time) error { return s.st.setWriteDeadline(t) }: s.st.setWriteDeadline(t): zero is returned":           "quic-go's deadlines return nil",
	"SendStream.SetWriteDeadline: func (s *SendStream) SetWriteDeadline(t time.Time) error { return s.st.setWriteDeadline(t) }: s.st.setWriteDeadline(t): zero is returned":   "quic-go's deadlines return nil",
	"ReceiveStream.SetReadDeadline: func (s *ReceiveStream) SetReadDeadline(t time.Time) error { return s.st.setReadDeadline(t) }: s.st.setReadDeadline(t): zero is returned": "quic-go's deadlines return nil",

	"streamState.writeCounted: if st.conn.guard.IdleTimeout > 0: st.conn.guard.IdleTimeout > 0: > becomes >=": "bytes are counted as they go, and the sum is the same in the end",

	"longAgo: var longAgo = time.Unix(1, 0): 0 becomes 1": "a nanosecond more or less, long ago",
}
