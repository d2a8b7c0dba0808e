package quiclife_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"
	"github.com/stretchr/testify/require"

	"github.com/quiclife/quiclife"
	"github.com/quiclife/quiclife/internal/quictest"
)

// A history is what a network and two programs do around a Shutdown. One end,
// the writer, opens streams, writes, closes them and shuts down; the other reads.
// Times are since the writer has its connection.
type history struct {
	latency, jitter time.Duration
	loss            int  // in percent
	lossyHandshake  bool // else it begins after the handshake
	outages         []outage
	server          bool            // the writer
	keepAlive       time.Duration   // KeepAlivePeriod of the writer, 0 is none
	peerSends       time.Duration   // how often the reader sends a datagram, 0 is never
	peerStops       time.Duration   // when it ends that
	streams         []time.Duration // when each is opened, written to and closed
	size            int             // of each
	shutdown        time.Duration   // when Shutdown is called
}

// An outage loses all packets of the writer (out), of the reader (in), or both.
type outage struct {
	from, to time.Duration
	out, in  bool
}

// An outcome is what became of it.
type outcome struct {
	err  error // of Shutdown
	lost int   // streams that the reader did not read in full
	took time.Duration
}

// run plays h. It returns false if there was no connection.
func (h history) run(t *testing.T, seed uint64) (o outcome, ok bool) {
	bubble(t, func(t *testing.T) {
		r := rand.New(rand.NewPCG(seed, 1))
		var mu sync.Mutex // guards r and the fields below
		var start time.Time
		writerPort := 1000 // the client's
		if h.server {
			writerPort = 443
		}
		drop := func(p simnet.Packet) bool {
			mu.Lock()
			defer mu.Unlock()
			if start.IsZero() {
				return h.lossyHandshake && r.IntN(100) < h.loss
			}
			now, out := time.Since(start), portOf(p.From) == writerPort
			for _, o := range h.outages {
				if o.from <= now && now < o.to && (out && o.out || !out && o.in) {
					return true
				}
			}
			return r.IntN(100) < h.loss
		}
		jitter := func() time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return time.Duration(r.Int64N(int64(h.jitter) + 1))
		}
		pc, ps, addr := quictest.Net{Latency: h.latency, Drop: drop, Jitter: jitter}.Endpoints(t)
		guard := &quiclife.Guard{Logger: slog.New(slog.DiscardHandler)}
		ctr, str := &quiclife.Transport{Conn: pc, Guard: guard}, &quiclife.Transport{Conn: ps, Guard: guard}
		defer ctr.Close()
		defer str.Close()
		conf := &quic.Config{EnableDatagrams: true, MaxIdleTimeout: 10 * time.Minute, HandshakeIdleTimeout: time.Minute}
		writerConf := conf.Clone()
		writerConf.KeepAlivePeriod = h.keepAlive
		serverConf, clientConf := conf, writerConf
		if h.server {
			serverConf, clientConf = writerConf, conf
		}
		serverTLS, clientTLS := quictest.TLS()
		ln, err := str.Listen(serverTLS, serverConf)
		require.NoError(t, err)
		defer ln.Close()

		reader, got := make(chan *quiclife.Conn, 1), &sync.Map{}
		serve := func(c *quiclife.Conn) { // the reader
			reader <- c
			go func() {
				for since := time.Now(); h.peerSends > 0 && time.Since(since) < h.peerStops && c.SendDatagram([]byte("x")) == nil; {
					time.Sleep(h.peerSends)
				}
			}()
			for {
				s, err := c.AcceptUniStream(context.Background())
				if err != nil {
					return
				}
				go func() {
					if b, err := io.ReadAll(s); err == nil && len(b) == h.size && h.size >= 4 {
						got.Store(binary.BigEndian.Uint32(b), true)
					}
				}()
			}
		}
		writes := func(c *quiclife.Conn) {
			o = h.write(c, func() {
				mu.Lock()
				defer mu.Unlock()
				start = time.Now()
			})
		}
		done := make(chan struct{})
		accepted := serve
		if h.server {
			accepted = writes
		}
		go func() {
			defer close(done)
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			defer cancel()
			if c, err := ln.Accept(ctx); err == nil {
				if h.server {
					ok = true
				}
				accepted(c)
			}
		}()
		c, err := ctr.Dial(context.Background(), addr, clientTLS, clientConf)
		if err != nil {
			return
		}
		if h.server {
			go serve(c)
			<-done
		} else {
			ok = true
			writes(c)
		}
		time.Sleep(10 * time.Second) // what was under way arrives
		mu.Lock()
		h.loss, h.outages = 0, nil
		mu.Unlock()
		for i := range h.streams {
			if _, arrived := got.Load(uint32(i)); !arrived {
				o.lost++
			}
		}
		select {
		case c := <-reader:
			c.CloseWithError(0, "")
		default: // never accepted
		}
		c.CloseWithError(0, "")
		synctest.Wait()
	})
	return o, ok
}

func portOf(a interface{ String() string }) int {
	s := a.String()
	port, _ := strconv.Atoi(s[bytes.LastIndexByte([]byte(s), ':')+1:])
	return port
}

// write is what the writer does.
func (h history) write(c *quiclife.Conn, begins func()) (o outcome) {
	begins()
	start := time.Now()
	at := func(t time.Duration) { time.Sleep(time.Until(start.Add(t))) }
	data := make([]byte, h.size)
	for i, t := range h.streams {
		at(t)
		s, err := c.OpenUniStream()
		if err != nil {
			return outcome{err: err}
		}
		binary.BigEndian.PutUint32(data, uint32(i))
		if _, err := s.Write(data); err != nil {
			return outcome{err: err}
		}
		s.Close()
	}
	at(h.shutdown)
	start = time.Now()
	o.err = shutdown(c, 5*time.Minute)
	o.took = time.Since(start)
	return o
}

const (
	ms    = time.Millisecond
	heals = 700 * ms // after the call of Shutdown, and 10 latencies
)

// outages are histories in which the network fails and heals, each of which a
// rule that looked right has lost.
var outages = map[string]func(latency, delay time.Duration) history{
	"before the call": func(latency, delay time.Duration) history {
		return history{streams: []time.Duration{time.Second}, shutdown: time.Second + delay,
			outages: []outage{{time.Second - ms, time.Second + delay + heals + 10*latency, true, true}}}
	},
	"writes during it": func(latency, delay time.Duration) history {
		h := history{shutdown: time.Second + delay, outages: []outage{{time.Second - ms, time.Second + delay + heals + 10*latency, true, true}}}
		for i := range time.Duration(6) {
			h.streams = append(h.streams, time.Second+i*delay/5)
		}
		return h
	},
	"a keep-alive during it": func(latency, delay time.Duration) history {
		// The PING is sent a second after the connection began to rest.
		return history{keepAlive: time.Second, streams: []time.Duration{1500*ms + delay}, shutdown: 1500*ms + delay,
			outages: []outage{{500 * ms, 1500*ms + 2*delay + heals + 10*latency, true, true}}}
	},
	"of one direction": func(latency, delay time.Duration) history {
		return history{streams: []time.Duration{time.Second}, shutdown: time.Second + delay, peerSends: 5 * ms, peerStops: time.Second + delay + 100*ms,
			outages: []outage{{time.Second - ms, time.Second + delay + heals + 10*latency, true, false}}}
	},
}

// TestShutdownTakesOutageForQuiet: an outage that began before Shutdown leaves
// quic-go silent for long, as its probes are ever further apart. That is no quiet.
func TestShutdownTakesOutageForQuiet(t *testing.T) {
	for name, draw := range outages {
		for _, latency := range []time.Duration{ms, 25 * ms, 150 * ms} {
			lost, runs := 0, 0
			for _, delay := range []time.Duration{0, 30 * ms, 100 * ms, 200 * ms, 300 * ms, 500 * ms, 800 * ms, 1300 * ms, 2 * time.Second} {
				h := draw(latency, delay+delay*latency/(50*ms))
				h.latency, h.jitter, h.size = latency, latency/4, 100
				o, ok := h.run(t, uint64(delay))
				require.True(t, ok)
				require.NoError(t, o.err, "outage %s, latency %v, delay %v", name, latency, delay)
				runs++
				if o.lost > 0 {
					lost++
				}
			}
			require.Zero(t, lost, "outage %s, latency %v: Shutdown returned nil and data was lost in %d of %d", name, latency, lost, runs)
		}
	}
}
