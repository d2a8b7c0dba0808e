package ledger

import (
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	h3qlog "github.com/quic-go/quic-go/http3/qlog"
	"github.com/quic-go/quic-go/qlog"
	"github.com/quic-go/quic-go/qlogwriter"
)

// A trace is the [qlogwriter.Trace] of a connection. It passes quic-go's events
// to the ledger, and to the next trace if there is one.
type trace struct {
	conn      *Conn
	next      qlogwriter.Trace
	producers atomic.Int64
}

func (t *trace) AddProducer() qlogwriter.Recorder {
	t.producers.Add(1)
	t.conn.begin()
	r := &recorder{trace: t}
	if t.next != nil {
		r.next = t.next.AddProducer()
	}
	return r
}

func (c *Conn) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.began == 0 {
		c.state.began = time.Now().UnixNano()
	}
}

// A recorder takes the events of one producer: the connection itself, or http3.
// quic-go calls it on the connection's event loop, and sometimes holds a stream's
// lock. So the recorder calls nothing but the next recorder.
type recorder struct {
	trace *trace
	next  qlogwriter.Recorder
}

// Close ends the connection when the last producer closes. It is called once.
func (r *recorder) Close() error {
	if t := r.trace; t.producers.Add(-1) == 0 {
		t.conn.apply(event{op: opClosed, at: time.Now().UnixNano()})
		t.conn.ledger.end(t.conn)
	}
	if r.next != nil {
		return r.next.Close()
	}
	return nil
}

func (r *recorder) RecordEvent(e qlogwriter.Event) {
	c := r.trace.conn
	if !c.listed.Load() {
		switch e.(type) {
		case qlog.PacketSent, qlog.PacketReceived:
			if c.listed.CompareAndSwap(false, true) {
				c.ledger.begin(c)
			}
		}
	}
	c.record(e)
	if r.next != nil {
		r.next.RecordEvent(e)
	}
}

// record translates the events of quic-go and http3.
func (c *Conn) record(e qlogwriter.Event) {
	switch e := e.(type) {
	case qlog.PacketSent:
		if isData(e.Header.PacketType) {
			c.packet(e.Frames, true, int64(e.Header.PacketNumber))
		}
	case qlog.PacketReceived:
		switch {
		case isData(e.Header.PacketType):
			c.packet(e.Frames, false, 0)
		case e.Header.PacketType == qlog.PacketTypeRetry:
			c.apply(event{op: opRetry})
		}
	case qlog.PacketLost:
		if isData(e.Header.PacketType) {
			n := int64(e.Header.PacketNumber)
			c.apply(event{op: opLost, n1: n, n2: n})
		}
	case qlog.MetricsUpdated:
		c.apply(event{op: opMetrics, n1: int64(e.CongestionWindow), n2: int64(e.BytesInFlight)})
	case qlog.ParametersSet:
		c.apply(event{op: opParameters, sent: e.Initiator == qlog.InitiatorLocal, params: &parameters{
			maxData:   int64(e.InitialMaxData),
			dataLocal: int64(e.InitialMaxStreamDataBidiLocal), dataRemote: int64(e.InitialMaxStreamDataBidiRemote), data: int64(e.InitialMaxStreamDataUni),
			streams: e.InitialMaxStreamsBidi, streamsUni: e.InitialMaxStreamsUni,
		}})
	case qlog.ParametersRestored:
		c.apply(event{op: opRestored, params: &parameters{
			maxData:   int64(e.InitialMaxData),
			dataLocal: int64(e.InitialMaxStreamDataBidiLocal), dataRemote: int64(e.InitialMaxStreamDataBidiRemote), data: int64(e.InitialMaxStreamDataUni),
		}})
	case qlog.KeyUpdated:
		switch e.KeyType {
		case qlog.KeyTypeClient0RTT:
			c.apply(event{op: opEarlyKeys})
		case qlog.KeyTypeClient1RTT:
			c.apply(event{op: opKeys})
		}
	case qlog.KeyDiscarded:
		if e.KeyType == qlog.KeyTypeClient0RTT {
			c.apply(event{op: opEarlyDone})
		}
	case qlog.StartedConnection:
		c.setAddresses(addressOf(e.Local), addressOf(e.Remote))
	case qlog.TupleAssigned:
		if e.TupleID == "" { // the active path
			c.setAddresses(addressOf(e.Local), addressOf(e.Remote))
		}
	case qlog.ConnectionClosed:
		// Do not wait for Close: http3 keeps its producer while a handler runs.
		c.apply(event{op: opClosed, at: time.Now().UnixNano(), text: closed(e)})
		c.ledger.end(c)
	case h3qlog.FrameCreated:
		c.http3(int64(e.StreamID), e.Frame)
	case h3qlog.FrameParsed:
		c.http3(int64(e.StreamID), e.Frame)
	case h3qlog.StreamTypeSet:
		c.apply(event{op: opLabel, id: int64(e.StreamID), text: "http3 " + string(e.StreamType)})
	}
}

// isData reports whether packets of type t are in the packet number space that
// carries streams.
func isData(t qlog.PacketType) bool {
	return t == qlog.PacketType1RTT || t == qlog.PacketType0RTT
}

// packet applies those frames of a packet that matter.
func (c *Conn) packet(frames []qlog.Frame, sent bool, pn int64) {
	locked := false
	var at int64
	for i := range frames {
		e := event{sent: sent, pn: pn}
		switch f := frames[i].Frame.(type) {
		case *qlog.StreamFrame:
			e.op, e.id, e.n1, e.n2, e.fin = opStream, int64(f.StreamID), f.Offset, f.Length, f.Fin
		case *qlog.AckFrame:
			if sent {
				continue
			}
		case *qlog.ResetStreamFrame:
			e.op, e.id, e.n1, e.n2, e.code = opReset, int64(f.StreamID), int64(f.FinalSize), int64(f.ReliableSize), uint64(f.ErrorCode)
		case *qlog.StopSendingFrame:
			e.op, e.id, e.code = opStopSending, int64(f.StreamID), uint64(f.ErrorCode)
		case *qlog.MaxStreamDataFrame:
			e.op, e.id, e.n1 = opMaxStreamData, int64(f.StreamID), int64(f.MaximumStreamData)
		case *qlog.StreamDataBlockedFrame:
			e.op, e.id = opStreamDataBlocked, int64(f.StreamID)
		case *qlog.MaxDataFrame:
			e.op, e.n1 = opMaxData, int64(f.MaximumData)
		case *qlog.MaxStreamsFrame:
			e.op, e.n1, e.uni = opMaxStreams, int64(f.MaxStreamNum), f.Type == typeUni
		case *qlog.StreamsBlockedFrame:
			e.op, e.n1, e.uni = opStreamsBlocked, int64(f.StreamLimit), f.Type == typeUni
		default:
			continue
		}
		if !locked {
			locked, at = true, time.Now().UnixNano()
			c.mu.Lock()
		}
		e.at = at
		if ack, ok := frames[i].Frame.(*qlog.AckFrame); ok {
			e.op = opAcked
			for _, r := range ack.AckRanges {
				e.n1, e.n2 = int64(r.Smallest), int64(r.Largest)
				c.state.apply(e)
			}
			continue
		}
		c.state.apply(e)
	}
	if locked {
		c.unlock()
	}
}

// typeUni is quic-go's constant for unidirectional streams. The constant is
// internal, but it is the zero value of its type.
var typeUni = qlog.MaxStreamsFrame{}.Type

func (c *Conn) setAddresses(local, remote string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.local, c.remote = local, remote
}

func addressOf(e qlog.TupleEndpointInfo) string {
	for _, a := range []netip.AddrPort{e.IPv4, e.IPv6} {
		if a.IsValid() {
			return a.String()
		}
	}
	return ""
}

// closed returns why a connection has ended.
func closed(e qlog.ConnectionClosed) string {
	who := "we closed it"
	if e.Initiator == qlog.InitiatorRemote {
		who = "the peer closed it"
	}
	switch {
	case e.ApplicationError != nil:
		return strings.TrimSpace(fmt.Sprintf("%s: application error %d %s", who, uint64(*e.ApplicationError), e.Reason))
	case e.ConnectionError != nil:
		return strings.TrimSpace(fmt.Sprintf("%s: transport error %#x %s", who, uint64(*e.ConnectionError), e.Reason))
	case e.Trigger != "":
		return strings.ReplaceAll(string(e.Trigger), "_", " ")
	}
	return who
}

// http3 labels the stream of a request with the method and path. It leaves out
// the query, which is more often secret than useful.
func (c *Conn) http3(id int64, f h3qlog.Frame) {
	headers, ok := f.Frame.(h3qlog.HeadersFrame)
	if !ok {
		return
	}
	var r requestLine
	for _, h := range headers.HeaderFields {
		r.add(h.Name, h.Value)
	}
	if text := r.label(); text != "" {
		c.apply(event{op: opLabel, id: id, text: text})
	}
}

// A requestLine holds those pseudo-headers of a request that we use.
type requestLine struct{ method, path, authority string }

func (r *requestLine) add(name, value string) {
	switch name {
	case ":method":
		r.method = value
	case ":path":
		r.path = value
	case ":authority":
		r.authority = value
	}
}

// label returns "" if r is not from a request.
func (r *requestLine) label() string {
	if r.method == "" {
		return ""
	}
	path, _, _ := strings.Cut(r.path, "?")
	if path == "" {
		path = r.authority
	}
	const enough = 256
	text := r.method + " " + path
	if len(text) > enough {
		text = strings.ToValidUTF8(text[:enough], "") + "..."
	}
	return strings.Clone(text)
}
